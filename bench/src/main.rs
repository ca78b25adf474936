//! Longshore beside raw client loops that do the same work, in one run on one machine.
//!
//! The work: a JSON body of about 170 bytes is published and confirmed, or received, decoded, counted in
//! a handler and acknowledged at least once. Raw loops and Longshore take turns, because absolute figures
//! move with the machine: the ratios of one run are what counts. Longshore runs with everything on that it
//! promises; no tracing subscriber and no metrics recorder are installed.
//!
//! Started by `cargo xtask bench`, which provides the brokers.

mod arguments;
mod contest;
mod contestant;
mod cpu;
mod job;
mod longshore;
mod raw_amqp;
mod raw_memory;
mod raw_redis;
mod report;
mod tally;

use std::process::ExitCode;

use crate::arguments::Arguments;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            eprintln!("{mistake}\n\n{}", arguments::USAGE);
            return Ok(ExitCode::from(2));
        }
    };
    let mut sound = true;
    for &broker in &arguments.brokers {
        for &mode in &arguments.modes {
            let table = contest::run(broker, mode, &arguments).await?;
            table.print();
            sound &= table.is_sound();
        }
    }
    Ok(match sound {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
