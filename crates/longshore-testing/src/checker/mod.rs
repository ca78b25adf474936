//! Judges a history: which promises were broken.
//!
//! A [`Checker`] looks at one [`Record`] after the other, in the order of the history, and keeps a
//! bounded state for each message, session and id. [`Checker::finish`] gives the [`Report`].
//!
//! ```no_run
//! use longshore_testing::{checker::{Checker, Rules}, history};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut checker = Checker::new(Rules::default());
//! for record in history::read("history.jsonl")? {
//!     checker.observe(&record?);
//! }
//! let report = checker.finish();
//! for violation in &report.violations {
//!     println!("{violation}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A time-out is unknown, never failed: what a publish with an unknown answer became of is nobody's
//! fault. What a history cannot show to be wrong is not a violation. So the writer of the history
//! owes it this much:
//!
//! - A handler writes `Start` first. It writes `End` last, after its effect and before it returns,
//!   also where it is dropped. A `Succeeded` is believed to be settled unless its process died, a
//!   fault was near, or the ledger had called its effect stale.
//! - `Killed` is written before a process is killed, or within 5 s after it died by itself. The number
//!   of a dead process is not used again.
//! - `FaultBegins` is written before a fault can be felt, `FaultEnds` when it is gone. While a fault
//!   is near ([`Rules::aftermath`]), locks and answers may be lost, so the narrower the better. A
//!   fault that only ends processes is named in [`Rules::processes_only`].
//! - `StopBegins` and `StopEnds` are written by the process that stops.
//! - A message is named by its number; what is published again under it is the same message.

mod account;
mod attempts;
mod dead;
mod delays;
mod ends;
mod faults;
mod findings;
mod ids;
mod messages;
mod processes;
mod progress;
mod report;
mod rules;
mod runs;
mod sessions;
mod starts;

pub use report::{Figures, Report, Rule, Verdict, Violation};
pub use rules::{Evidence, Rules};

use std::time::Duration;

use crate::history::{Answer, Event, Publish, Record};

/// Looks at a history, line by line.
#[derive(Debug)]
pub struct Checker {
    rules: Rules,
    figures: Figures,
    findings: findings::Findings,
    messages: messages::Messages,
    sessions: sessions::Sessions,
    ids: ids::Ids,
    runs: runs::Runs,
    faults: faults::Faults,
    processes: processes::Processes,
    progress: progress::Progress,
    delays: delays::Delays,
}

impl Checker {
    /// Has seen nothing yet.
    pub fn new(rules: Rules) -> Self {
        let faults = faults::Faults::new(rules.aftermath, rules.processes_only.clone());
        Self {
            rules,
            faults,
            figures: Figures::default(),
            findings: findings::Findings::default(),
            messages: messages::Messages::default(),
            sessions: sessions::Sessions::default(),
            ids: ids::Ids::default(),
            runs: runs::Runs::default(),
            processes: processes::Processes::default(),
            progress: progress::Progress::default(),
            delays: delays::Delays::default(),
        }
    }

    /// Looks at the next line.
    pub fn observe(&mut self, record: &Record) {
        self.confirm(Some(record.at));
        let at = record.at;
        match &record.event {
            Event::Publish(publish) => self.published(record, publish),
            Event::Answered { message, answer } => self.answered(*message, *answer),
            &Event::Noting { message, attempt } => self.noting(record, message, attempt),
            &Event::Start {
                message,
                attempt,
                token,
                intact,
                ..
            } => self.started(record, message, attempt, token, intact),
            &Event::End {
                message,
                attempt,
                how,
            } => self.ended(record, message, attempt, how),
            &Event::Effect {
                message,
                token,
                effect,
            } => self.effected(record, message, token, effect),
            Event::Dead {
                message,
                reason,
                attempts,
                intact,
            } => self.dead(record, *message, reason, *attempts, *intact),
            Event::Left { message } => self.still_queued(record, *message),
            Event::Redriven { message } => self.redriven(record, *message),
            Event::Killed { victim } => {
                self.figures.kills += 1;
                self.stop_ends(record, *victim);
                self.faults.kill(at, *victim);
            }
            Event::FaultBegins { fault } => {
                self.figures.faults += 1;
                self.progress.fault_begins();
                self.faults.begin(at, fault);
            }
            Event::FaultEnds { fault } => {
                self.progress.fault_ends(at);
                self.faults.end(at, fault);
            }
            Event::Healed => self.progress.healed(record),
            Event::Drained => self.progress.drained(at),
            Event::StopBegins { within } => self.stop_begins(record, *within),
            Event::StopEnds => self.stop_ends(record, record.process),
            Event::Owns { partition, token } => self.owns(record, partition, *token),
            Event::Memory { resident } => self.memory(record, *resident),
            Event::Wrong { message, what } => {
                let what = format!("message {message}: {what}");
                self.broken(Rule::Seen, what, [record.clone()]);
            }
            Event::Health { .. } | Event::Saw { .. } => {}
        }
    }

    /// There are no more lines.
    pub fn finish(mut self) -> Report {
        let drained = self.progress.drained.is_some();
        self.end_all();
        self.confirm(None);
        self.stop_all();
        self.account(drained || self.figures.left > 0);
        self.keep_going();
        let missing = self.want_evidence(drained);
        self.figures.lateness_p50 = self.delays.percentile(50);
        self.figures.lateness_p99 = self.delays.percentile(99);
        self.figures.lateness_max = self.delays.percentile(100);
        Report {
            figures: self.figures,
            violations: self.findings.listed,
            unlisted: self.findings.unlisted,
            missing,
        }
    }

    fn published(&mut self, record: &Record, publish: &Publish) {
        self.figures.published += 1;
        let index = match self.messages.index(publish.message) {
            Some(index) => index,
            None => {
                let queue = self.messages.queue(&publish.queue);
                let session = publish.key.map(|key| self.sessions.place(queue, key));
                let id = publish.dedup;
                let id = id.map(|dedup| self.ids.place(queue, publish.key, dedup));
                let (at, publisher) = (record.at, record.process);
                self.messages.add(at, publisher, publish, session, id)
            }
        };
        let message = &mut self.messages[index];
        if message.stored() == 0 {
            message.published = record.at;
        }
        message.tries += 1;
    }

    fn answered(&mut self, message: u64, answer: Answer) {
        match answer {
            Answer::Confirmed => self.figures.confirmed += 1,
            Answer::Duplicate => self.figures.duplicates += 1,
            Answer::Refused => self.figures.refused += 1,
            Answer::Unknown => self.figures.unknown += 1,
        }
        if let Some(index) = self.messages.index(message) {
            self.messages[index].answered(answer);
        }
    }

    /// Adds what was suspected and is not explained.
    fn confirm(&mut self, now: Option<Duration>) {
        while let Some(violation) = self.findings.confirmed(now, &self.faults) {
            if violation.rule == Rule::Cancelled {
                self.figures.cancellations += 1;
                let allowed = self.rules.cancellations.unwrap_or(u64::MAX);
                if self.figures.cancellations <= allowed {
                    continue;
                }
            }
            self.findings.add(violation);
        }
    }
}

#[cfg(test)]
mod tests;
