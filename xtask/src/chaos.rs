//! `cargo xtask chaos`: load, faults, and the check that every promise held.

use std::process::ExitCode;

use tokio::process::Command;

use crate::interrupt::{self, Interrupt};
use crate::supply::provide_binaries;
use crate::{Failure, root};

/// Builds the harness and runs it; the arguments are its own.
///
/// # Errors
/// It cannot be built or run.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    provide_binaries();
    // With the features and the profile of `cargo test --workspace --all-features`, so that neither
    // builds again what the other has. A program is built for the tests of its package only.
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(["test", "--quiet", "--workspace", "--all-features"])
        .args(["--no-run", "--test", "conductor"])
        .status()
        .await?;
    if !built.success() {
        return Err("the harness cannot be built".into());
    }
    let mut program = std::env::current_exe()?;
    program.set_file_name("longshore-chaos");
    let mut running = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .spawn()?;
    tokio::select! {
        biased;
        () = interrupt.wished() => {
            // Whatever it has started ends with it.
            running.kill().await?;
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        status = running.wait() => {
            let code = status?.code().and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.unwrap_or(1)))
        }
    }
}
