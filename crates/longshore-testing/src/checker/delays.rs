//! Never early, and not late.

use std::time::Duration;

use super::{
    Checker,
    findings::Unless,
    report::{Rule, Violation},
};
use crate::history::Record;

/// How late delayed messages started, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Delays(Vec<u32>);

impl Delays {
    /// Of every hundred so many were no later than this.
    pub(super) fn percentile(&mut self, of_hundred: usize) -> Duration {
        let Some(last) = self.0.len().checked_sub(1) else {
            return Duration::ZERO;
        };
        let (_, late, _) = self.0.select_nth_unstable(last * of_hundred / 100);
        Duration::from_micros(u64::from(*late))
    }
}

impl Checker {
    /// The first start of a message that was published with a delay.
    pub(super) fn keep_delay(&mut self, record: &Record, index: usize) {
        let message = &self.messages[index];
        let (delay, published) = (message.delay, message.published);
        if delay.is_zero() || message.attempts.highest() > 0 {
            return;
        }
        let number = message.number;
        let Some(late) = record.at.checked_sub(published + delay) else {
            let early = (published + delay).saturating_sub(record.at);
            let what = format!("message {number} starts {early:?} early, of {delay:?}");
            let records = [self.publish_record(message), record.clone()];
            self.broken(Rule::Early, what, records);
            return;
        };
        // A session has its own reasons to wait.
        if message.session.is_some() {
            return;
        }
        let micros = u32::try_from(late.as_micros()).unwrap_or(u32::MAX);
        self.delays.0.push(micros);
        let Some(bound) = self.rules.lateness else {
            return;
        };
        let excused = self.faults.disturbed(published) || self.faults.stop_since(published);
        if late > bound + delay / 100 && message.tries == 1 && !excused {
            let what = format!("message {number} starts {late:?} late, of {delay:?}");
            let records = vec![self.publish_record(message), record.clone()];
            let violation = Violation::new(Rule::Late, what, records);
            let unless = Unless::AnyKilled { since: published };
            self.findings.suspect(record.at, unless, violation);
        }
    }
}
