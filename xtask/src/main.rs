//! Development commands of the workspace, run as `cargo xtask <command>`.

// A command-line tool talks to its user.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod apt;
mod bench;
mod brokers;
mod chaos;
mod compose;
mod fuzz;
mod interrupt;
mod mutants;
mod python;
mod simulate;
mod supply;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <command>

  test [-- <cargo test arguments>]
        Provides RabbitMQ, Redis and a Python with their clients, and runs every test of the workspace.
        Example: cargo xtask test -- -p longshore-redis some_test -- --nocapture
  brokers
        Provides the same brokers, prints their URLs and runs until Ctrl-C.
  bench [--broker amqp|redis|memory]… [--messages N] [--rounds N] [--mode consume|publish|latency]… [--only TEXT]…
        Runs Longshore beside raw client loops that do the same work, in release mode, and prints a table.
  chaos [--broker amqp|redis]… [--fault NAME]… [--seconds S] [--seed N] [--workers W] [--runs N]
        [--json FILE] [--list]
        Puts processes under load, breaks things, heals them, waits until all is done, and checks that every
        promise held. Its brokers are private ones.
        `--fault all` is each after the other, `mix` (the default) one after the other in one run; `--json` adds
        a line a run.
  simulate [--seeds N] [--first S] [--seed S [--history]]
        Runs the framework on the memory transport under faults in simulated time, one history for each seed;
        2,000 unless said. What fails is run again with --seed, and shown with --history.
  fuzz [--target NAME]… [--seconds S]
        Feeds mutated input to everything that reads what strangers wrote, S seconds for each target: under
        libFuzzer where `cargo fuzz` and a nightly toolchain are installed, else with mutations of its own.
  mutants [--only FLAW]… [--seeds N]
        Breaks one promise after the other on purpose and says what of simulate and chaos notices it; a flaw
        that nothing notices is a failure.

Brokers are taken from LONGSHORE_TEST_AMQP_URL and LONGSHORE_TEST_REDIS_URL where they are set, else from
`docker compose` where an engine answers, else they are private processes from installed binaries, which
are installed first where apt-get and root allow it. LONGSHORE_RABBITMQ_SERVER and LONGSHORE_REDIS_SERVER
choose other server commands, for example `chroot /opt/trixie /usr/bin/valkey-server`.
";

/// What a command fails with: a text for the user.
type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::run(&[]).await,
        ["test", "--", rest @ ..] => test::run(rest).await,
        ["brokers"] => brokers::run().await,
        ["chaos", rest @ ..] => chaos::run(rest).await,
        ["bench", rest @ ..] => bench::run(rest).await,
        ["mutants", rest @ ..] => mutants::run(rest).await,
        ["simulate", rest @ ..] => simulate::run(rest).await,
        ["fuzz", rest @ ..] => fuzz::run(rest).await,
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|failure| {
        eprintln!("xtask: {failure}");
        ExitCode::FAILURE
    })
}

/// The workspace's root folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
