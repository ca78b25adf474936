//! Whether things go on again after faults.

use std::time::Duration;

use super::{Checker, report::Rule};
use crate::history::Record;

#[derive(Debug, Default)]
pub(super) struct Progress {
    fault_ended: Option<Duration>,
    longest: Duration,
    healed: Option<Record>,
    first: Option<Record>,
    pub(super) drained: Option<Duration>,
}

impl Progress {
    pub(super) fn fault_begins(&mut self) {
        self.fault_ended = None;
    }

    pub(super) fn fault_ends(&mut self, at: Duration) {
        self.fault_ended = Some(at);
    }

    pub(super) fn healed(&mut self, record: &Record) {
        self.healed = Some(record.clone());
    }

    pub(super) fn effect(&mut self, record: &Record) {
        if let Some(ended) = self.fault_ended.take() {
            self.longest = self.longest.max(record.at.saturating_sub(ended));
        }
        // What takes effect once everything is done is no sign of recovery.
        if self.healed.is_some() && self.drained.is_none() && self.first.is_none() {
            self.first = Some(record.clone());
        }
    }

    pub(super) fn drained(&mut self, at: Duration) {
        self.drained.get_or_insert(at);
    }
}

impl Checker {
    /// Whether all of it got done, and in time.
    pub(super) fn keep_going(&mut self) {
        let progress = std::mem::take(&mut self.progress);
        self.figures.recovery = progress.longest;
        let Some(healed) = progress.healed else {
            return;
        };
        if let (Some(first), Some(within)) = (progress.first, self.rules.recover_within) {
            let took = first.at.saturating_sub(healed.at);
            if took > within {
                let what = format!("the first effect came {took:?} after the last fault");
                self.broken(Rule::Liveness, what, [healed.clone(), first]);
            }
        }
        let Some(drained) = progress.drained else {
            let what = "not everything was done in the end".to_owned();
            self.broken(Rule::Liveness, what, [healed]);
            return;
        };
        let took = drained.saturating_sub(healed.at);
        self.figures.drain = Some(took);
        if took > self.rules.drain_within {
            let what = format!("everything was done {took:?} after the last fault");
            self.broken(Rule::Liveness, what, [healed]);
        }
    }
}
