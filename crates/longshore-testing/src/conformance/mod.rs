//! The conformance suite: what a transport promises, as named cases that run against it.
//!
//! A transport's author calls it from a test target of its own, `tests/conformance.rs`, which has
//! `harness = false` in its `Cargo.toml`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! # use longshore_core::{ConnectOptions, Result, Transport};
//! # async fn connect(_: &str, _: ConnectOptions) -> Result<std::sync::Arc<dyn Transport>> { todo() }
//! # fn todo() -> Result<std::sync::Arc<dyn Transport>> { std::process::exit(0) }
//! use longshore_testing::conformance::{self, Suite};
//!
//! fn main() -> ExitCode {
//!     conformance::main(Suite::new("mybroker", |options| {
//!         Box::pin(connect("mybroker://localhost", options))
//!     }))
//! }
//! ```
//!
//! Each case is a test of its own: `cargo test --test conformance p8` runs those of one promise, and
//! the exit code says whether all passed. The names begin with the number of the promise they show.
//!
//! Cases follow the transport's own [`Capabilities`](longshore_core::Capabilities). Where one is
//! absent, its cases check instead that asking for it is a clear error. Cases that need a broker to
//! be killed, cut off or frozen run where [`Suite::faults`] says how, and are listed as ignored with
//! the reason where it does not. They, and those that measure delays, run alone; all others run side
//! by side.
//!
//! A store has a suite of its own, [`StoreSuite`], run by [`store_main`] in the same way.
//!
//! Queues have names unique to the run and stay behind on the broker, which has no way to delete
//! them in the contract. Use a broker made for tests.

mod case;
mod cases;
mod consumer;
mod faults;
mod member;
mod message;
mod must;
mod playing;
mod refusal;
#[cfg(unix)]
mod rig;
mod stage;
mod stores;
mod suite;

pub use faults::{Act, Faults};
#[cfg(unix)]
pub use rig::on_broker;
pub use stores::{Opening, StoreSuite, store_main};
pub use suite::{Connecting, Suite, main};
