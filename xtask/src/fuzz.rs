//! `cargo xtask fuzz`: hostile input for as long as asked.

use std::process::{ExitCode, Stdio};

use tokio::process::Command;

use crate::interrupt::{self, Interrupt};
use crate::{Failure, root};

/// What `cargo fuzz` is given for each target, unless asked otherwise.
const SECONDS: &str = "60";

/// Runs the targets under libFuzzer where `cargo fuzz` and a nightly toolchain are installed, else
/// over the mutations of the targets' own program, in release mode.
///
/// # Errors
/// An argument is none, or `cargo` could not be run.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let runs = match libfuzzer_is_there().await {
        true => under_libfuzzer(arguments)?,
        false => vec![by_itself(arguments)],
    };
    for mut run in runs {
        let mut running = run.current_dir(root()).kill_on_drop(true).spawn()?;
        let status = tokio::select! {
            biased;
            () = interrupt.wished() => {
                running.kill().await?;
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
            status = running.wait() => status?,
        };
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The toolchain that runs this is stable, and must not be handed on.
fn nightly() -> Command {
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", "nightly", "cargo"])
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

async fn libfuzzer_is_there() -> bool {
    let asked = nightly()
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.await.is_ok_and(|status| status.success())
}

fn by_itself(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["run", "--release", "--quiet", "--package", "longshore-fuzz"])
        .args(["--bin", "longshore-fuzz", "--"])
        .args(arguments);
    cargo
}

fn under_libfuzzer(arguments: &[&str]) -> Result<Vec<Command>, Failure> {
    let (mut targets, mut seconds) = (Vec::new(), SECONDS);
    for pair in arguments.chunks(2) {
        match pair {
            ["--target", name] => targets.push((*name).to_owned()),
            ["--seconds", number] => seconds = number,
            _ => return Err(format!("libFuzzer does not take {}", pair.join(" ")).into()),
        }
    }
    if targets.is_empty() {
        for entry in std::fs::read_dir(root().join("fuzz/corpus"))? {
            targets.push(entry?.file_name().to_string_lossy().into_owned());
        }
        targets.sort();
    }
    let run = |target: String| {
        // The first folder takes what is new; the corpus that is kept is the second.
        let found = format!("fuzz/found/{target}");
        std::fs::create_dir_all(root().join(&found))?;
        let mut cargo = nightly();
        cargo
            .args(["fuzz", "run", "--features", "libfuzzer", &target, &found])
            .arg(format!("fuzz/corpus/{target}"))
            .args(["--", "-timeout=10", "-malloc_limit_mb=64", "-max_len=65536"])
            .arg(format!("-max_total_time={seconds}"));
        Ok(cargo)
    };
    targets.into_iter().map(run).collect()
}
