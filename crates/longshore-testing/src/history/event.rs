//! One line of a history.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One thing that happened, when, and in which process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// On the machine's monotonic clock, which all its processes share. A simulation has its own.
    pub at: Duration,
    /// The process it happened in. A simulation numbers its workers.
    pub process: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A publish is about to be made. A message that is published again (with the same id, because
    /// the first answer was unknown) has one of these for each try.
    Publish(Publish),
    /// What a publish was answered.
    Answered {
        /// Which message.
        message: u64,
        /// What came back.
        answer: Answer,
    },
    /// The start of a message is about to be noted at the broker. From then on it may count, also where
    /// its process dies before the handler starts.
    Noting {
        /// Which message.
        message: u64,
        /// The number of that attempt.
        attempt: u32,
    },
    /// A handler has started.
    Start {
        /// Which message.
        message: u64,
        /// The attempt number it sees.
        attempt: u32,
        /// The fencing token it sees; 0 outside sessions.
        token: u64,
        /// The lane it came from; `None` for the normal one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lane: Option<String>,
        /// Body, key, headers and id are what was published.
        intact: bool,
    },
    /// A handler has ended. One that died with its process has no such line.
    End {
        /// Which message.
        message: u64,
        /// Of which start.
        attempt: u32,
        /// How.
        how: Ending,
    },
    /// What the effect ledger, a process of its own, decided. The only judge of what took effect.
    Effect {
        /// Which message.
        message: u64,
        /// Under which fencing token; 0 outside sessions.
        token: u64,
        /// What it decided.
        effect: Effect,
    },
    /// A dead letter, read when the run was over.
    Dead {
        /// Which message.
        message: u64,
        /// Its reason, as the wire has it.
        reason: String,
        /// How many attempts it says it had.
        attempts: u32,
        /// Body, key, headers, id and source queue are what was published.
        intact: bool,
    },
    /// Still queued when the run was over.
    Left {
        /// Which message.
        message: u64,
    },
    /// A dead letter is about to be sent back to its queue: its attempts begin again.
    Redriven {
        /// Which message.
        message: u64,
    },
    /// A process is about to be killed, or was found dead. What it was running has ended.
    Killed {
        /// Which.
        victim: u32,
    },
    /// A fault begins.
    FaultBegins {
        /// Its name.
        fault: String,
    },
    /// A fault is over.
    FaultEnds {
        /// Its name.
        fault: String,
    },
    /// All faults are over for good: from here on everything must recover.
    Healed,
    /// Nothing is queued, delayed or in flight any more.
    Drained,
    /// A worker was asked to stop; it has so long.
    StopBegins {
        /// The deadline.
        within: Duration,
    },
    /// The worker that was asked to stop has.
    StopEnds,
    /// The health of a worker has changed.
    Health {
        /// Whether it is ready.
        ready: bool,
    },
    /// A worker came to own a partition under this token.
    Owns {
        /// Which, with its queue: `orders.s16.03`.
        partition: String,
        /// The fencing token.
        token: u64,
    },
    /// The handler of a session has read its state: which message has left it, `None` where none has.
    Saw {
        /// Which message has read it.
        message: u64,
        /// Which message has left it.
        last: Option<u64>,
    },
    /// A process saw for itself what must not be: a reply that belongs to another request, a state
    /// from the future.
    Wrong {
        /// Which message.
        message: u64,
        /// What it saw.
        what: String,
    },
    /// The resident memory of a process.
    Memory {
        /// In bytes.
        resident: u64,
    },
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The number that names it in the whole history.
    pub message: u64,
    /// The queue.
    pub queue: String,
    /// Its session, where the queue has sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u64>,
    /// Its place in its session. One publisher publishes all messages of a session, each after the
    /// answer to the one before it.
    pub seq: u64,
    /// Its id in the dedup window of the queue, where that has one. Several messages may share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<u64>,
    /// How long until it may start.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub delay: Duration,
    /// What its handler will do.
    pub fate: Fate,
}

/// What the handler of a message will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fate {
    /// Succeeds at its first attempt that is not disturbed.
    Succeed,
    /// Fails so many attempts, then succeeds.
    Fail(u32),
    /// Always fails.
    FailAlways,
    /// Is refused for good at once.
    Refuse,
    /// Always panics.
    Panic,
    /// Never returns.
    Hang,
    /// Always takes its process with it.
    Abort,
    /// Cannot be processed: undecodable, of an unknown type, hostile. No handler ever sees it.
    Unprocessable,
}

/// What a publish was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Stored durably.
    Confirmed,
    /// Known inside the dedup window; nothing was stored.
    Duplicate,
    /// Definitely not stored.
    Refused,
    /// Nobody can say.
    Unknown,
}

/// How a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// With success.
    Succeeded,
    /// With success, where it has published something or replied: it counts only once the broker has
    /// that too.
    SucceededIfSent,
    /// With an error.
    Failed,
    /// With an error that allows no other attempt.
    Refused,
    /// With a panic.
    Panicked,
    /// Its token was cancelled, or it was dropped: its lock was lost, its time limit had passed or
    /// its worker stopped.
    Cancelled,
}

/// What the effect ledger decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It took effect.
    Accepted,
    /// A larger token has been seen for its session.
    Stale,
}
