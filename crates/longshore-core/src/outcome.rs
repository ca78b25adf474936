//! What a delivery ends as: the handler's word, and the settlement that carries it to the broker.

use std::{borrow::Cow, fmt, time::Duration};

use crate::{Envelope, Error, ErrorKind, MarkWrite, Receipt, StateWrite};

/// What a handler may say its delivery ends as.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done; the message is gone.
    Complete,
    /// Again, as a new attempt.
    Retry {
        /// How long to wait; `None` takes the queue's backoff.
        after: Option<Duration>,
    },
    /// Set aside now, without further attempts.
    DeadLetter {
        /// Why, as a word operators can filter by.
        reason: Reason,
        /// What happened, for a person to read; cut at 4 KiB.
        detail: String,
    },
}

/// Why a message was set aside. [`as_str`](Self::as_str) is the word on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The last allowed attempt failed.
    Exhausted,
    /// The handler said that trying again cannot help.
    Permanent,
    /// Its process died during the last allowed attempt.
    Crashed,
    /// Its process died, and with one allowed attempt nobody knows whether it had started.
    Abandoned,
    /// The body is not what the message type says.
    Undecodable,
    /// No handler is registered for its type.
    NoHandler,
    /// Its expiry passed before a handler started.
    Expired,
    /// The body is larger than the limit.
    TooLarge,
    /// Headers or names break a limit.
    Hostile,
    /// The queue has sessions and the message has no key.
    KeyMissing,
    /// An earlier message of its session is a dead letter, and the session is set aside whole.
    SessionSetAside,
    /// A word of the handler's own, 1 to 64 characters of `[a-z0-9_-]`.
    Other(Cow<'static, str>),
}

impl Reason {
    /// The word on the wire, in metrics and in filters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::Crashed => "crashed",
            Self::Abandoned => "abandoned",
            Self::Undecodable => "undecodable",
            Self::NoHandler => "no-handler",
            Self::Expired => "expired",
            Self::TooLarge => "too-large",
            Self::Hostile => "hostile",
            Self::KeyMissing => "key-missing",
            Self::SessionSetAside => "session-set-aside",
            Self::Other(word) => word,
        }
    }

    /// Reads a word from the wire. A word that breaks the rule of [`Reason::Other`] is read as
    /// `unknown`.
    pub fn parse(word: &str) -> Self {
        let known = [
            Self::Exhausted,
            Self::Permanent,
            Self::Crashed,
            Self::Abandoned,
            Self::Undecodable,
            Self::NoHandler,
            Self::Expired,
            Self::TooLarge,
            Self::Hostile,
            Self::KeyMissing,
            Self::SessionSetAside,
        ];
        for reason in known {
            if reason.as_str() == word {
                return reason;
            }
        }
        let fits = (1..=64).contains(&word.len())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        Self::Other(if fits {
            Cow::Owned(word.to_owned())
        } else {
            Cow::Borrowed("unknown")
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the framework tells the broker to do with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Remove it: the work is done.
    Complete,
    /// This attempt was used; deliver again, to anybody, `after` from now. Zero is at once.
    Retry {
        /// Never early; late by at most 1 % + 250 ms.
        after: Duration,
    },
    /// Set aside, complete and durably, before the source is released.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// What happened; at most 4 KiB.
        detail: String,
    },
    /// Never started, or in a partition not started again: available to others `after` from now, at
    /// no cost to its attempts. In a partition it keeps its place and is available once the
    /// partition is released.
    Release {
        /// Zero is at once.
        after: Duration,
    },
}

/// One settlement, by value: a delivery can be settled once.
#[derive(Debug)]
#[non_exhaustive]
pub struct Settlement {
    /// The lock to settle.
    pub receipt: Receipt,
    /// What it ends as.
    pub verdict: Verdict,
    /// How often a handler had started once this is settled: the delivery's attempt number, or one
    /// less where none started now and it becomes a dead letter. [`Verdict::Release`] has the number
    /// the next start will have again.
    pub attempt: u32,
    /// What travelled, back again for everything but [`Verdict::Complete`]: some brokers must
    /// publish it anew.
    pub envelope: Option<Envelope>,
    /// What becomes of its dedup mark, for transports that settle atomically.
    pub mark: Option<MarkWrite>,
    /// What becomes of the state of its session, for transports that settle atomically.
    pub state: Option<StateWrite>,
}

impl Settlement {
    /// Settles the delivery of this receipt as complete.
    pub fn complete(receipt: Receipt, attempt: u32) -> Self {
        Self {
            receipt,
            verdict: Verdict::Complete,
            attempt,
            envelope: None,
            mark: None,
            state: None,
        }
    }

    /// Settles with any verdict.
    pub fn new(receipt: Receipt, attempt: u32, verdict: Verdict, envelope: Envelope) -> Self {
        Self {
            receipt,
            verdict,
            attempt,
            envelope: Some(envelope),
            mark: None,
            state: None,
        }
    }

    /// Refuses this settlement: given back unless the lock itself is gone.
    pub fn refused(self, error: Error) -> Unsettled {
        let settlement = (error.kind() != ErrorKind::Stale).then(|| Box::new(self));
        Unsettled { error, settlement }
    }
}

/// A settlement that did not happen, or may not have.
#[derive(Debug)]
pub struct Unsettled {
    /// What stood in the way.
    pub error: Error,
    /// The settlement to try again; `None` where the lock is gone and another try is useless.
    pub settlement: Option<Box<Settlement>>,
}
