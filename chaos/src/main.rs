//! Load, faults, and the proof that nothing was lost: one program that is every process of a run.

// A command-line tool talks to its user.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod conductor;
mod crew;
mod drain;
mod faults;
mod handler;
mod hindsight;
mod inside;
mod interior;
mod item;
mod json;
mod judge;
mod lifeline;
mod order;
mod plan;
mod publisher;
mod random;
mod raw;
mod reach;
mod redriver;
mod row;
mod run;
mod scene;
mod service;
mod slot;
mod stall;
mod summary;
mod worker;

use std::process::ExitCode;

use longshore_testing::{history::Recorder, ledger};
use tracing_subscriber::EnvFilter;

use crate::{
    arguments::Arguments,
    plan::{HISTORY, LEDGER},
};

/// What keeps a process from doing its work: a text for the user.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Who is started by the conductor is given its number and how often it was started.
    let number = |index: usize| words.get(index).and_then(|word| word.parse().ok());
    let slot = usize::try_from(number(1).unwrap_or(0)).unwrap_or_default();
    let boot = number(2).unwrap_or(1);
    if matches!(
        words.first().map(String::as_str),
        Some("worker" | "publisher")
    ) {
        log();
    }
    let done = match words.first().map(String::as_str) {
        Some("worker") => runtime(true).and_then(|on| on.block_on(worker::run())),
        Some("publisher") => runtime(true).and_then(|on| on.block_on(publisher::run(slot, boot))),
        Some("redriver") => runtime(false).and_then(|on| on.block_on(redriver::run())),
        Some("ledger") => runtime(false).and_then(|on| on.block_on(decide())),
        _ => match conduct(words) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What a process has to say stands in its log. lapin calls every closed channel an error.
fn log() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn,lapin=off"))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}

fn conduct(mut words: Vec<String>) -> Result<ExitCode, Failure> {
    if words.first().is_some_and(|word| word == "conductor") {
        words.remove(0);
    }
    let arguments = Arguments::read(words)?;
    runtime(true)?.block_on(conductor::run(&arguments))
}

async fn decide() -> Result<(), Failure> {
    lifeline::hold();
    Ok(ledger::serve(LEDGER, Recorder::open(HISTORY)?).await?)
}

fn runtime(threads: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    Ok(builder.enable_all().worker_threads(2).build()?)
}
