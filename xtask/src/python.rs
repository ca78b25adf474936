//! A Python virtual environment with the brokers' plain clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, apt, root};

/// Plain clients that run on every Python since 3.8.
const REQUIREMENTS: [&str; 2] = ["pika==1.3.2", "redis==5.2.1"];

/// Makes the environment under the target folder, or takes the one that is there, and returns its
/// interpreter.
///
/// # Errors
/// There is no Python 3 with `venv`, or PyPI cannot be reached; the text says what to install.
pub(crate) fn provide() -> Result<PathBuf, Failure> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder));
    let folder = target.join("python");
    let python = folder.join("bin/python");
    let complete = folder.join("longshore-complete");
    let wanted = REQUIREMENTS.join("\n");
    let runs = || {
        Command::new(&python)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if fs::read_to_string(&complete).is_ok_and(|found| found == wanted) && runs() {
        return Ok(python);
    }
    println!(
        "xtask: making a Python environment with {}",
        REQUIREMENTS.join(", ")
    );
    fs::create_dir_all(&target)?;
    if let Err(failure) = make(&folder) {
        if !apt::available() {
            return Err(format!("{failure}: install Python 3 with its venv module").into());
        }
        apt::install(&["python3", "python3-venv"])?;
        make(&folder)?;
    }
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(REQUIREMENTS))?;
    fs::write(complete, wanted)?;
    Ok(python)
}

fn make(folder: &Path) -> Result<(), Failure> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(folder))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed ({status})").into())
}
