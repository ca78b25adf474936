//! `cargo xtask bench`: Longshore beside raw client loops on the same brokers.

use std::process::ExitCode;

use longshore_testing::brokers::{AMQP_URL_VARIABLE, REDIS_URL_VARIABLE};
use tokio::process::Command;

use crate::interrupt::{self, Interrupt};
use crate::supply::Supply;
use crate::{Failure, root};

/// Builds the comparison in release mode and runs it; the arguments are its own.
///
/// # Errors
/// A broker could not be provided, or `cargo` could not be run.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let mut bench = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    bench
        .current_dir(root())
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "longshore-bench",
            "--",
        ])
        .args(arguments)
        .kill_on_drop(true);
    let supply = match wants_brokers(arguments) {
        false => None,
        true => Some(tokio::select! {
            biased;
            () = interrupt.wished() => return Ok(ExitCode::from(interrupt::EXIT_CODE)),
            supply = Supply::provide() => supply?,
        }),
    };
    if let Some(supply) = &supply {
        bench
            .env(AMQP_URL_VARIABLE, &supply.amqp_url)
            .env(REDIS_URL_VARIABLE, &supply.redis_url);
    }
    let mut running = bench.spawn()?;
    tokio::select! {
        biased;
        () = interrupt.wished() => {
            // `cargo run` has become the program, so this ends all of it.
            running.kill().await?;
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        status = running.wait() => {
            let code = status?.code().and_then(|code| u8::try_from(code).ok());
            Ok(ExitCode::from(code.unwrap_or(1)))
        }
    }
}

fn wants_brokers(arguments: &[&str]) -> bool {
    let chosen = arguments.windows(2).filter(|pair| pair[0] == "--broker");
    let mut chosen = chosen.map(|pair| pair[1]).peekable();
    chosen.peek().is_none() || chosen.any(|broker| broker != "memory")
}
