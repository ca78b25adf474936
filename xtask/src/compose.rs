//! The brokers of `docker-compose.yml`.

use std::process::{Command, Stdio};

use crate::{Failure, root};

/// Services that `docker compose` has started for us; stopped and removed when it is dropped.
pub(crate) struct Compose {
    services: Vec<&'static str>,
}

impl Compose {
    /// Whether a Docker engine answers and its client knows `compose`.
    pub(crate) fn available() -> bool {
        let quiet = |arguments: &[&str]| {
            let status = Command::new("docker")
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        quiet(&["info"]) && quiet(&["compose", "version"])
    }

    /// Starts the services and waits until they are healthy. What ran before is used and left running.
    ///
    /// # Errors
    /// `docker compose` failed; it has printed why. What it had started is stopped again.
    pub(crate) fn start(services: &[&'static str]) -> Result<Self, Failure> {
        let before = compose()
            .args(["ps", "--services", "--status", "running"])
            .output()?;
        let before = String::from_utf8_lossy(&before.stdout).into_owned();
        let ours = services
            .iter()
            .copied()
            .filter(|service| !before.lines().any(|line| line == *service))
            .collect();
        let started = Self { services: ours };
        let status = compose()
            .args(["up", "--detach", "--wait"])
            .args(services)
            .status()?;
        if status.success() {
            return Ok(started);
        }
        Err(format!("`docker compose up` failed ({status})").into())
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if !self.services.is_empty() {
            let _ = compose()
                .args(["rm", "--stop", "--force", "--volumes"])
                .args(&self.services)
                .status();
        }
    }
}

fn compose() -> Command {
    let mut command = Command::new("docker");
    command
        .arg("compose")
        .arg("--file")
        .arg(root().join("docker-compose.yml"));
    command
}
