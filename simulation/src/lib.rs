//! The framework on the memory transport, under faults, in simulated time: one seed is one history.
//!
//! Everything runs on one thread with tokio's paused time; clock, ids and faults come from the seed, so
//! a seed that fails fails again, and does so in milliseconds. `cargo xtask simulate` runs many.

mod acts;
mod arguments;
mod catalogue;
mod clock;
mod crew;
mod diary;
mod fleet;
mod handler;
mod items;
mod job;
mod load;
mod operator;
mod process;
mod quiet;
mod random;
mod run;
mod scenario;
mod tally;
mod witness;
mod world;

pub use arguments::{Arguments, USAGE};
pub use fleet::{PATIENCE, Run, run_all};
pub use run::{Outcome, run};
pub use tally::Tally;
