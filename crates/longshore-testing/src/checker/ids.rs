//! The rules of one id in a dedup window, and of the copies of one message outside of any.

use std::{collections::HashMap, time::Duration};

use super::{
    Checker,
    findings::{NOTICE, SETTLING, Unless},
    messages::{Done, narrow},
    report::{Rule, Violation},
    runs::Name,
};
use crate::history::Record;

/// What is known of one id, in its queue and session.
#[derive(Debug)]
pub(super) struct Id {
    pub(super) dedup: u64,
    pub(super) running: Option<Name>,
    /// The last start that completed it, as far as nothing says that it was not settled.
    pub(super) done: Option<Done>,
    /// The last time that any did.
    pub(super) last_done: Option<Duration>,
    /// A message of this id is a dead letter, or still queued.
    pub(super) set_aside: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) all: Vec<Id>,
    by_name: HashMap<(u32, Option<u64>, u64), u32>,
}

impl Ids {
    pub(super) fn place(&mut self, queue: u32, key: Option<u64>, dedup: u64) -> u32 {
        *self.by_name.entry((queue, key, dedup)).or_insert_with(|| {
            self.all.push(Id {
                dedup,
                running: None,
                done: None,
                last_done: None,
                set_aside: false,
            });
            narrow(self.all.len() - 1)
        })
    }
}

impl Checker {
    /// A message starts: not beside another copy, and not after one that was completed.
    pub(super) fn start_once(&mut self, record: &Record, name: Name) {
        let message = &self.messages[name.message];
        match (message.id, message.session) {
            (Some(id), session) => self.start_once_by_id(record, name, id as usize, session),
            (None, Some(_)) => self.start_once_by_copy(record, name.message),
            (None, None) => {
                self.run_alone(record, name.message);
                self.start_once_by_copy(record, name.message);
            }
        }
    }

    fn start_once_by_id(&mut self, record: &Record, name: Name, id: usize, session: Option<u32>) {
        let before = self.ids.all[id].running.replace(name);
        // The ids of a session are its own, and it has looked already.
        if let (Some(before), None) = (before, session) {
            // What was sent back runs whatever the window says.
            let redriven = |name: Name| self.messages[name.message].redrives > 0;
            if !redriven(before) && !redriven(name) {
                self.overlap(before, record);
            }
        }
        let window = self.rules.dedup_window;
        let message = &self.messages[name.message];
        let Some(done) = self.ids.all[id].done.take() else {
            return;
        };
        let over = record.at >= done.ended + window;
        if over || message.redrives > 0 || self.may_be_unsettled(&done) {
            return;
        }
        let what = format!(
            "id {} starts {:?} after it was completed, in a window of {window:?}",
            self.ids.all[id].dedup,
            record.at.saturating_sub(done.ended)
        );
        let records = vec![self.publish_record(message), record.clone()];
        let unless = unsettled_by_death(&done);
        let violation = Violation::new(Rule::Dedup, what, records);
        self.findings.suspect(record.at, unless, violation);
    }

    /// As many at once as there are copies.
    fn run_alone(&mut self, record: &Record, index: usize) {
        let message = &self.messages[index];
        if self.may_be_copied(message.published) {
            return;
        }
        let copies = message.copies() as usize;
        let faults = &self.faults;
        let mut alive: Vec<_> = self
            .runs
            .of(index)
            .iter_mut()
            .filter(|run| run.overlapped.is_none() && !faults.killed(run.process))
            .collect();
        if alive.len() >= copies.max(1) {
            alive[0].overlapped = Some(Box::new(record.clone()));
        }
    }

    /// A copy that succeeded, or was refused for good, is gone.
    fn start_once_by_copy(&mut self, record: &Record, index: usize) {
        let message = &self.messages[index];
        if message.finals == 0 || u32::from(message.finals) < message.copies() {
            return;
        }
        let Some(done) = message.done else { return };
        let published = message.published;
        // Of several copies, nobody knows which one this is.
        let several = message.copies() > 1;
        let unsettled = match several {
            true => self.faults.near(published),
            false => self.may_be_unsettled(&done),
        };
        if !unsettled && !self.may_be_copied(published) {
            let what = format!("message {} starts after it was completed", message.number);
            let records = vec![self.publish_record(message), record.clone()];
            let unless = match self.rules.may_copy || several {
                true => Unless::AnyKilled { since: published },
                false => unsettled_by_death(&done),
            };
            let violation = Violation::new(Rule::Repeated, what, records);
            self.findings.suspect(record.at, unless, violation);
        }
        self.messages[index].finals -= 1;
    }

    /// A fault may have kept it from being settled.
    pub(super) fn may_be_unsettled(&self, done: &Done) -> bool {
        self.faults.between(done.started, done.ended + SETTLING)
    }

    /// A crash or a broken connection may have left a copy of what was published then.
    pub(super) fn may_be_copied(&self, published: Duration) -> bool {
        self.rules.may_copy && self.faults.disturbed(published)
    }
}

/// Its process may have died before it was settled.
fn unsettled_by_death(done: &Done) -> Unless {
    Unless::Killed {
        process: done.process,
        by: done.ended + NOTICE,
    }
}
