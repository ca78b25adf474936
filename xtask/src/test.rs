//! `cargo xtask test`: every test of the workspace against real brokers.

use std::process::{ExitCode, ExitStatus, Stdio};

use longshore_testing::brokers::{AMQP_URL_VARIABLE, PYTHON_VARIABLE, REDIS_URL_VARIABLE};
use tokio::process::{Child, Command};

use crate::interrupt::{self, Interrupt};
use crate::supply::{Supply, provide_binaries};
use crate::{Failure, python, root};

/// Runs the tests and returns their exit code, with everything that was started stopped again.
///
/// # Errors
/// A broker or the Python environment could not be provided, or `cargo` could not be run.
pub(crate) async fn run(extra: &[&str]) -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    provide_binaries();
    let python = python::provide()?;
    let supply = tokio::select! {
        biased;
        () = interrupt.wished() => return Ok(ExitCode::from(interrupt::EXIT_CODE)),
        supply = Supply::provide() => supply?,
    };

    let mut tests = cargo_test(extra)
        .env(AMQP_URL_VARIABLE, &supply.amqp_url)
        .env(REDIS_URL_VARIABLE, &supply.redis_url)
        .env(PYTHON_VARIABLE, python)
        .spawn()?;
    let code = tokio::select! {
        biased;
        () = interrupt.wished() => {
            end(&mut tests).await;
            interrupt::EXIT_CODE
        }
        status = tests.wait() => exit_code(status?),
    };
    drop(supply);
    Ok(ExitCode::from(code))
}

/// In a process group of its own, so that all of it can be ended: `cargo` alone would leave the test
/// processes behind.
fn cargo_test(extra: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .stdin(Stdio::null())
        .process_group(0)
        // One failure must not hide the others.
        .args(["test", "--no-fail-fast"]);
    let own = extra
        .split(|argument| *argument == "--")
        .next()
        .unwrap_or_default();
    if !own
        .iter()
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
    {
        command.arg("--workspace");
    }
    if !own.contains(&"--features") {
        command.arg("--all-features");
    }
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", test_threads().to_string());
    }
    command.args(extra);
    command
}

/// Tests mostly wait for brokers, so two threads for each core; more than eight at once would only make
/// the brokers slow and the tests' time limits tight.
fn test_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| (2 * cores.get()).clamp(2, 8))
}

async fn end(tests: &mut Child) {
    if let Some(group) = tests.id() {
        let _ = Command::new("sh")
            .args(["-c", "kill -TERM \"$1\"", "sh", &format!("-{group}")])
            .status()
            .await;
    }
    let _ = tests.wait().await;
}

fn exit_code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}
