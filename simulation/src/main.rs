//! `cargo xtask simulate`.

// A command-line tool talks to its user.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{process::ExitCode, time::Instant};

use longshore_simulation::{Arguments, Run, Tally, USAGE, run_all};

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprint!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut tally = Tally::default();
    run_all(arguments.seeds.clone(), threads, |run| {
        if let (true, Run::Over(outcome)) = (arguments.history, &run) {
            println!("{}", outcome.scenario);
            for record in &outcome.records {
                println!("{}", serde_json::to_string(record).unwrap_or_default());
            }
        }
        tally.add(run);
        if told.elapsed().as_secs() >= 5 {
            told = Instant::now();
            let (of, failed) = (arguments.seeds.end - arguments.seeds.start, &tally.failed);
            eprintln!("{} of {of} seeds, {} failed", tally.seeds, failed.len());
        }
    });
    print!("{}", tally.table(begun.elapsed()));
    match tally.has_passed() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
