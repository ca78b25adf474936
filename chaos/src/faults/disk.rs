//! A disk that is full.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures_util::FutureExt;

use super::{Act, Evidence, Fault};
use crate::{Failure, plan::On, scene::Scene};

pub(super) fn all() -> Vec<Fault> {
    let evidence = Evidence {
        strikes: 1,
        ..Evidence::default()
    };
    vec![Fault {
        // It takes a system that lets us mount.
        mixes: false,
        ends_broker: true,
        evidence,
        ..Fault::new(
            "disk-full",
            "33",
            "the broker's data is on a disk of 96 MB, which is full for a while",
            Act::Once(|scene| disk_full(scene).boxed()),
        )
    }]
}

/// Moves the data to a small file system, fills that, makes room, and moves it back.
async fn disk_full(scene: &mut Scene) -> Result<(), Failure> {
    let data = scene.broker.data_folder();
    let data = match scene.plan.on {
        On::Amqp => data.join("mnesia"),
        _ => data.join("node0/appendonlydir"),
    };
    scene.broker.stop().await?;
    let disk = match Disk::mount(data) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("disk-full needs to mount a file system: {error}");
            return scene.broker.start_again().await.map_err(Into::into);
        }
    };
    scene.broker.start_again().await?;
    scene.pause(1_000..=3_000).await;
    let ballast = disk.fill()?;
    scene.pause(3_000..=6_000).await;
    fs::remove_file(ballast)?;
    // It may have ended itself, or gone on without what it could not write.
    scene.broker.stop().await?;
    scene.broker.start_again().await?;
    scene.pause(1_000..=3_000).await;
    scene.broker.stop().await?;
    disk.unmount()?;
    scene.broker.start_again().await?;
    scene.strikes += 1;
    Ok(())
}

/// A small file system in the place of a folder, with its files.
struct Disk {
    folder: PathBuf,
    /// Unmounts it when the conductor dies.
    guard: Option<Child>,
}

impl Disk {
    fn mount(folder: PathBuf) -> Result<Self, Failure> {
        let away = beside(&folder, "away");
        fs::rename(&folder, &away)?;
        fs::create_dir(&folder)?;
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs"])
            .arg(&folder));
        if let Err(error) = mounted {
            fs::remove_dir(&folder)?;
            fs::rename(&away, &folder)?;
            return Err(error);
        }
        let guard = Command::new("sh")
            .args(["-c", "read -r _; umount -l \"$1\"", "longshore-unmount"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let disk = Self {
            folder,
            guard: Some(guard),
        };
        copy(&away, &disk.folder)?;
        fs::remove_dir_all(away)?;
        Ok(disk)
    }

    /// Writes until no octet more fits.
    fn fill(&self) -> Result<PathBuf, Failure> {
        let path = self.folder.join("ballast");
        let mut ballast = fs::File::create(&path)?;
        let mut piece = vec![0; 64 * 1024];
        while !piece.is_empty() {
            match ballast.write(&piece) {
                Ok(1..) => {}
                _ => piece.truncate(piece.len() / 2),
            }
        }
        Ok(path)
    }

    fn unmount(mut self) -> Result<(), Failure> {
        let back = beside(&self.folder, "back");
        fs::create_dir(&back)?;
        copy(&self.folder, &back)?;
        self.let_go()?;
        fs::remove_dir(&self.folder)?;
        Ok(fs::rename(back, &self.folder)?)
    }

    fn let_go(&mut self) -> Result<(), Failure> {
        if let Some(mut guard) = self.guard.take() {
            // The end of its input is what it waits for.
            drop(guard.stdin.take());
            guard.wait()?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.let_go();
    }
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}
