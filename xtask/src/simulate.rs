//! `cargo xtask simulate`: the framework under faults in simulated time.

use std::process::ExitCode;

use tokio::process::Command;

use crate::{Failure, root};

/// Builds the simulation and runs it; the arguments are its own.
///
/// # Errors
/// `cargo` could not be run.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let mut simulate = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    simulate
        .current_dir(root())
        .args(["run", "--quiet", "--package", "longshore-simulation", "--"])
        .args(arguments)
        .kill_on_drop(true);
    let status = simulate.status().await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
