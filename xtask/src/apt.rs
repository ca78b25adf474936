//! Installing packages on Debian and Ubuntu, without starting the services they bring.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use crate::Failure;

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether we are root on Debian, Ubuntu or one of their children.
pub(crate) fn available() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = release
        .lines()
        .filter(|line| line.starts_with("ID=") || line.starts_with("ID_LIKE="))
        .any(|line| line.contains("debian") || line.contains("ubuntu"));
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    debian && root
}

/// Installs packages.
///
/// # Errors
/// `apt-get` failed; it has printed why.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    println!("xtask: installing {} with apt-get", packages.join(", "));
    let _services_stay_down = NoServices::declare()?;
    apt_get(&["update", "--quiet"])?;
    let mut install = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    install.extend(packages);
    apt_get(&install)
}

fn apt_get(arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1")
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`apt-get {}` failed ({status})", arguments.join(" ")).into())
}

/// While it lives, packages do not start services: Debian's own way to say so, a file of this name that
/// exits with 101. Where the machine has such a file already it decides, as in container images.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self, Failure> {
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY);
        match created {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(Self { ours: true })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { ours: false })
            }
            Err(error) => Err(format!("cannot create {POLICY}: {error}").into()),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
