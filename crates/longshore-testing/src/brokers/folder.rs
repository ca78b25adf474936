//! The data folder of one broker, as we see it and as the server sees it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Error, ErrorKind};
use super::program::Program;

/// A fresh folder only its owner can read. The guardian removes it; this type never does.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    inside: String,
}

impl Folder {
    pub(crate) fn create(program: &Program) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = match (std::env::var_os("LONGSHORE_BROKER_DATA"), program.root()) {
            (Some(base), _) if !base.is_empty() => PathBuf::from(base),
            (_, Some(root)) => root.join("var/tmp"),
            (_, None) => std::env::temp_dir(),
        };
        fs::create_dir_all(&base)
            .map_err(|error| Error::io(format!("create {}", base.display()), error))?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("longshore-broker-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let inside = program.sees(&path)?;
                    return Ok(Self { path, inside });
                }
                // Left by a process of the same number whose guardian was killed with it.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(format!("create {}", path.display()), error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the folder as the server sees it.
    pub(crate) fn inside(&self, name: &str) -> String {
        format!("{}/{name}", self.inside)
    }

    pub(crate) fn subfolder(&self, name: &str) -> Result<Self, Error> {
        let path = self.path.join(name);
        fs::create_dir(&path)
            .map_err(|error| Error::io(format!("create {}", path.display()), error))?;
        Ok(Self {
            path,
            inside: self.inside(name),
        })
    }

    /// Writes a file only its owner can read, and returns its path as the server sees it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<String, Error> {
        let path = self.path.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| Error::io(format!("write {}", path.display()), error))?;
        Ok(self.inside(name))
    }

    /// Copies a file in, and returns its path as the server sees it.
    pub(crate) fn import(&self, name: &str, from: &Path) -> Result<String, Error> {
        let content = fs::read(from).map_err(|error| {
            Error::new(
                ErrorKind::NotConfigured,
                format!("cannot read {}: {error}", from.display()),
            )
        })?;
        self.write(name, &content)
    }
}
