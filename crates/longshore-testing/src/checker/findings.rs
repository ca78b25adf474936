//! What was found wrong, and what will be unless somebody turns out to have died.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    faults::Faults,
    report::{Rule, Violation},
};
use crate::history::Record;

/// A process that died by itself is noted when it is found dead, which may be after its messages have
/// started elsewhere: by so much at most.
pub(super) const NOTICE: Duration = Duration::from_secs(5);
/// How long what a handler ended with may take to be settled while nothing is wrong.
pub(super) const SETTLING: Duration = Duration::from_secs(2);
const LISTED: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) listed: Vec<Violation>,
    pub(super) unlisted: u64,
    counts: BTreeMap<Rule, u64>,
    suspicions: VecDeque<Suspicion>,
}

/// A violation, unless the history explains it within [`NOTICE`].
#[derive(Debug)]
struct Suspicion {
    violation: Violation,
    at: Duration,
    unless: Unless,
}

/// What explains it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unless {
    /// The death of this process.
    Killed {
        process: u32,
        /// It was noted by then.
        by: Duration,
    },
    /// The death of any, since then.
    AnyKilled {
        /// When what may be a copy was published.
        since: Duration,
    },
}

impl Unless {
    fn holds(self, faults: &Faults) -> bool {
        match self {
            Self::Killed { process, by } => faults.killed_by(process, by),
            Self::AnyKilled { since } => faults.kill_since(since),
        }
    }
}

impl Findings {
    /// A promise was broken.
    pub(super) fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.rule).or_default();
        *count += 1;
        match *count > LISTED {
            true => self.unlisted += 1,
            false => self.listed.push(violation),
        }
    }

    /// A promise was broken, unless.
    pub(super) fn suspect(&mut self, at: Duration, unless: Unless, violation: Violation) {
        self.suspicions.push_back(Suspicion {
            violation,
            at,
            unless,
        });
    }

    /// The next suspicion that nothing has explained, of those raised long enough before `now`; of
    /// all, where that is `None`.
    pub(super) fn confirmed(
        &mut self,
        now: Option<Duration>,
        faults: &Faults,
    ) -> Option<Violation> {
        loop {
            let front = self.suspicions.front()?;
            if now.is_some_and(|now| now <= front.at + NOTICE) {
                return None;
            }
            let suspicion = self.suspicions.pop_front()?;
            if !suspicion.unless.holds(faults) {
                return Some(suspicion.violation);
            }
        }
    }
}

impl Violation {
    pub(super) fn new(rule: Rule, what: impl Into<String>, records: Vec<Record>) -> Self {
        let what = what.into();
        Self {
            rule,
            what,
            records,
        }
    }
}
