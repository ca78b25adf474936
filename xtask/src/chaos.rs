//! `cargo xtask chaos`: load, faults, and the check that every promise held.

use std::path::Path;
use std::process::ExitCode;

use tokio::process::Command;

use crate::interrupt::{self, Interrupt};
use crate::supply::provide_binaries;
use crate::{Failure, root};

/// Where private brokers keep their data.
const DATA: &str = "LONGSHORE_BROKER_DATA";

/// Builds the harness and runs it; the arguments are its own.
///
/// # Errors
/// It cannot be built or run.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    provide_binaries();
    build().await?;
    let mut running = harness()?.args(arguments).spawn()?;
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

/// Builds the harness.
///
/// # Errors
/// It cannot be built.
pub(crate) async fn build() -> Result<(), Failure> {
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
    Ok(())
}

/// The harness that was built, without arguments.
///
/// # Errors
/// The system does not say where this program is.
pub(crate) fn harness() -> Result<Command, Failure> {
    let mut program = std::env::current_exe()?;
    program.set_file_name("longshore-chaos");
    let mut harness = Command::new(program);
    harness.kill_on_drop(true);
    // A disk that is busy with something else stalls every broker for seconds. Nothing here ends the
    // machine, so memory is as durable.
    let memory = Path::new("/dev/shm");
    if std::env::var_os(DATA).is_none() && memory.is_dir() {
        harness.env(DATA, memory);
    }
    Ok(harness)
}
