//! What the checker found.

use std::{fmt, time::Duration};

use crate::history::Record;

/// What a history says: figures, violations, and what it lacks to count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What happened, in numbers.
    pub figures: Figures,
    /// Every promise that was broken, in the order in which it was found. At most 100 of one rule.
    pub violations: Vec<Violation>,
    /// How many more there were than `violations` lists.
    pub unlisted: u64,
    /// What the run should have seen and did not: one line each.
    pub missing: Vec<String>,
}

impl Report {
    /// What to say of the run. A violation always wins.
    pub fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            return Verdict::Failed;
        }
        match self.missing.is_empty() {
            true => Verdict::Passed,
            false => Verdict::Invalid,
        }
    }
}

/// The last word on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise held, and the run saw enough to say so.
    Passed,
    /// A promise was broken.
    Failed,
    /// Nothing was broken, and too little happened to mean anything.
    Invalid,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, in one line for a person.
    pub what: String,
    /// The lines of the history that show it: few, the older first. What is no longer remembered of an
    /// older line (its lane) is left out.
    pub records: Vec<Record>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)?;
        for record in &self.records {
            let line = serde_json::to_string(record).map_err(|_| fmt::Error)?;
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A confirmed message is handled, a dead letter, or still queued.
    Lost,
    /// Nothing happens to a message that nobody published.
    Phantom,
    /// What was definitely not stored is not handled.
    Refused,
    /// The messages of a session start in the order of their publishes.
    Order,
    /// No message of a session starts again after a later one has started.
    Replay,
    /// The starts of one session, of one id in a dedup window, or of one copy do not overlap, except
    /// with a start that was cancelled, fenced off or killed.
    Overlap,
    /// A copy starts at most so often, and its attempt numbers rise.
    Attempts,
    /// What was completed or refused for good does not start again without a crash or a fault.
    Repeated,
    /// No handler is cancelled for nothing.
    Cancelled,
    /// A message pays for its own starts only: it is not dead without having used them up.
    Innocent,
    /// A dead letter has a known reason that fits its message, and is there once.
    DeadLetter,
    /// An id that was completed does not start again inside its window.
    Dedup,
    /// A publish answered as a duplicate is so of something handled, dead or still queued.
    Suppressed,
    /// Fencing tokens: granted once, used by their owner only, never accepted after a larger one.
    Fencing,
    /// No message starts before its delay has passed.
    Early,
    /// Nor much later.
    Late,
    /// A worker stops by its deadline.
    Stop,
    /// Memory stays below its limit.
    Memory,
    /// After the last fault things happen again, and all of it gets done.
    Liveness,
    /// What a handler or a dead letter shows is what was published.
    Corrupt,
    /// No process saw for itself what must not be.
    Seen,
}

impl Rule {
    /// Its name, for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Refused => "refused",
            Self::Order => "order",
            Self::Replay => "replay",
            Self::Overlap => "overlap",
            Self::Attempts => "attempts",
            Self::Repeated => "repeated",
            Self::Cancelled => "cancelled",
            Self::Innocent => "innocent",
            Self::DeadLetter => "dead-letter",
            Self::Dedup => "dedup",
            Self::Suppressed => "suppressed",
            Self::Fencing => "fencing",
            Self::Early => "early",
            Self::Late => "late",
            Self::Stop => "stop",
            Self::Memory => "memory",
            Self::Liveness => "liveness",
            Self::Corrupt => "corrupt",
            Self::Seen => "seen",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happened, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Publishes, each try counted.
    pub published: u64,
    /// Of these, confirmed.
    pub confirmed: u64,
    /// Of these, with an answer that says nothing.
    pub unknown: u64,
    /// Of these, definitely not stored.
    pub refused: u64,
    /// Of these, known inside a dedup window.
    pub duplicates: u64,
    /// Messages never confirmed that were handled or are dead letters all the same.
    pub recovered: u64,
    /// Starts of handlers.
    pub starts: u64,
    /// Of these, with an attempt number above 1.
    pub redeliveries: u64,
    /// Starts of a session again after a later message, where that may be.
    pub replays: u64,
    /// Effects the ledger accepted.
    pub effects: u64,
    /// Effects it rejected.
    pub stale_effects: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages still queued at the end.
    pub left: u64,
    /// Handlers cancelled for no reason in the history.
    pub cancellations: u64,
    /// Processes killed.
    pub kills: u64,
    /// Faults that began.
    pub faults: u64,
    /// Partitions that came to another process.
    pub owner_changes: u64,
    /// Starts and dead letters of copies that a crash left, where that may be.
    pub copies: u64,
    /// Messages that were lost: those before the first of their publisher and queue that was kept, as
    /// after a restart with an empty store.
    pub lost_before: u64,
    /// Those between others that were kept.
    pub lost_between: u64,
    /// Those after the last that was kept.
    pub lost_after: u64,
    /// How late delayed messages started, half of them at most.
    pub lateness_p50: Duration,
    /// 99 of 100 at most.
    pub lateness_p99: Duration,
    /// The latest.
    pub lateness_max: Duration,
    /// The longest from the end of a fault to the next effect.
    pub recovery: Duration,
    /// The most resident memory of a process, in bytes.
    pub memory: u64,
    /// From the healing of all faults until everything was done.
    pub drain: Option<Duration>,
}
