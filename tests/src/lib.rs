//! What the whole-system tests of Longshore share: a job, a journal that survives `kill -9`, and a
//! service that is started again whenever it dies.

pub mod certificates;
pub mod job;
pub mod journal;
pub mod load;
pub mod logs;
pub mod plain;
pub mod raw_amqp;
pub mod scene;
pub mod service;
pub mod step;
pub mod waiting;
pub mod witness;

/// A queue name nobody else uses, also not an earlier run against the same broker.
pub fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("t-{name}-{}-{}", std::process::id(), now.as_nanos())
}

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
