//! A handler starts.

use super::{
    Checker,
    findings::Unless,
    messages::Last,
    report::{Rule, Violation},
    runs::{Name, Run},
};
use crate::history::{Fate, Record};

impl Checker {
    pub(super) fn started(
        &mut self,
        record: &Record,
        number: u64,
        attempt: u32,
        token: u64,
        intact: bool,
    ) {
        self.figures.starts += 1;
        self.figures.redeliveries += u64::from(attempt > 1);
        let Some(index) = self.known(record, number) else {
            return;
        };
        if !intact {
            let what = format!("a handler sees message {number} otherwise than it was published");
            self.broken(Rule::Corrupt, what, [record.clone()]);
        }
        if self.messages[index].fate == Fate::Unprocessable {
            let what = format!("message {number} cannot be processed and was started");
            self.broken(Rule::DeadLetter, what, [record.clone()]);
        }
        let name = Name {
            message: index,
            attempt,
            process: record.process,
        };
        let fenced = self.take_turn(record, name, token);
        self.keep_delay(record, index);
        self.count_attempt(record, index, attempt, fenced);
        if !fenced {
            self.start_once(record, name);
        }
        let run = Run {
            attempt,
            process: record.process,
            token,
            at: record.at,
            stale: false,
            overlapped: None,
        };
        self.runs.begin(index, run);
        if !fenced {
            let message = &mut self.messages[index];
            message.fresh = false;
            message.last = Some(Last {
                attempt,
                process: record.process,
                at: record.at,
                ended: None,
            });
        }
    }

    /// A start that may count, whether it happens or not.
    pub(super) fn noting(&mut self, record: &Record, number: u64, attempt: u32) {
        let attempt = u16::try_from(attempt).unwrap_or(u16::MAX);
        if let Some(index) = self.known(record, number) {
            let message = &mut self.messages[index];
            if message.noted != attempt {
                message.unstarted += u16::from(message.noted > 0);
                message.noted = attempt;
            }
        }
    }

    /// At most so many, none twice, rising; and not more than were used.
    fn count_attempt(&mut self, record: &Record, index: usize, attempt: u32, fenced: bool) {
        let stolen = self.rules.stolen_attempts;
        let message = &mut self.messages[index];
        let (number, published) = (message.number, message.published);
        let (highest, times) = (message.attempts.highest(), message.attempts.add(attempt));
        message.starts += 1;
        if u32::from(message.noted) == attempt {
            message.noted = 0;
        }
        let stolen = stolen + message.only_noted();
        (message.noted, message.unstarted) = (0, 0);
        let copies = message.copies();
        let since = message.last.map_or(published, |last| last.at);
        let fresh = message.fresh;
        let wrong = |rule, what| Violation::new(rule, what, vec![record.clone()]);

        if attempt == 0 || attempt > self.rules.max_attempts {
            let most = self.rules.max_attempts;
            let what = format!("attempt {attempt} of message {number}, of {most}");
            self.findings.add(wrong(Rule::Attempts, what));
        } else if times > copies.max(1) {
            let what = format!("attempt {attempt} of message {number} for the {times}. time");
            let violation = wrong(Rule::Attempts, what);
            self.unless_copied(record, published, violation);
        } else if attempt < highest && copies < 2 && !fenced && !self.faults.near(since) {
            let what = format!("attempt {attempt} of message {number} after attempt {highest}");
            let violation = wrong(Rule::Attempts, what);
            self.unless_copied(record, published, violation);
        } else if fresh && attempt > 1 + stolen {
            let what = format!("message {number} was redriven and starts with attempt {attempt}");
            let violation = wrong(Rule::Attempts, what);
            // What an earlier redrive has left may run still.
            match message.redrives > 1 {
                true => self.unless_copied(record, published, violation),
                false => self.findings.add(violation),
            }
        } else if copies < 2 && attempt > highest + 1 + stolen {
            let what = format!("message {number} starts with attempt {attempt} after {highest}");
            self.findings.add(wrong(Rule::Innocent, what));
        }
    }

    /// A violation, unless a crash or a fault may have left a copy.
    fn unless_copied(
        &mut self,
        record: &Record,
        published: std::time::Duration,
        violation: Violation,
    ) {
        if self.may_be_copied(published) {
            return;
        }
        match self.rules.may_copy {
            true => {
                let unless = Unless::AnyKilled { since: published };
                self.findings.suspect(record.at, unless, violation);
            }
            false => self.findings.add(violation),
        }
    }

    /// Where a message is; that there is none is a violation.
    pub(super) fn known(&mut self, record: &Record, number: u64) -> Option<usize> {
        let index = self.messages.index(number);
        if index.is_none() {
            let what = format!("nobody published message {number}");
            self.broken(Rule::Phantom, what, [record.clone()]);
        }
        index
    }
}
