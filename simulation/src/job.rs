//! The messages of a simulation.

use std::time::Duration;

use longshore::{Message, Request};
use longshore_testing::history::Fate;
use serde::{Deserialize, Serialize};

/// A piece of work that says itself what its handler will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The number that names it in the whole history.
    pub(crate) number: u64,
    /// Its session.
    pub(crate) key: Option<u64>,
    /// Its place in its session.
    pub(crate) seq: u64,
    pub(crate) fate: Fate,
    /// It answers with a fault, which is an answer.
    pub(crate) unable: bool,
    /// How long its handler works, each time.
    pub(crate) work: Duration,
    /// It goes on although it was told that going on is useless.
    pub(crate) stubborn: bool,
    /// It reads and writes the state of its session.
    pub(crate) stateful: bool,
    /// What its handler publishes.
    pub(crate) child: Option<u64>,
    /// Any text.
    pub(crate) padding: String,
}

impl Message for Job {
    const TYPE: &'static str = "job";
}

/// A job whose publisher waits for the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask(pub(crate) Job);

impl Message for Ask {
    const TYPE: &'static str = "ask";
}

impl Request for Ask {
    type Reply = Told;
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The number of the job that was asked.
    pub(crate) number: u64,
}

/// A request that is answered by a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unable {
    /// The number of the job that was asked.
    pub(crate) number: u64,
}

impl Message for Unable {
    const TYPE: &'static str = "unable";
}
