//! Fuzz targets: functions that take arbitrary octets and panic where a promise about hostile input
//! is broken.
//!
//! The same functions run in three ways: as an ordinary test over `corpus/` and some mutations of it
//! (`tests/corpus.rs`), for as long as one likes with the mutations of this crate, and under libFuzzer
//! where `cargo fuzz` is installed. `cargo xtask fuzz` picks the best there is.

mod corpus;
mod mutations;
mod octets;
mod target;
mod targets;

pub use corpus::{artifacts, corpus};
pub use mutations::Mutations;
pub use target::{TARGETS, Target};
pub use targets::{
    amqp_envelope, amqp_frames, codec, history, names, redis_envelope, redis_replies, urls,
};
