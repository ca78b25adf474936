//! A handler takes effect, and ends.

use std::time::Duration;

use super::{
    Checker,
    findings::{NOTICE, Unless},
    messages::Done,
    report::{Rule, Violation},
    runs::{Name, Run},
};
use crate::history::{Effect, Ending, Fate, Record};

impl Checker {
    pub(super) fn effected(&mut self, record: &Record, number: u64, token: u64, effect: Effect) {
        match effect {
            Effect::Accepted => self.figures.effects += 1,
            Effect::Stale => self.figures.stale_effects += 1,
        }
        let Some(index) = self.known(record, number) else {
            return;
        };
        if self.messages[index].attempts.highest() == 0 {
            let what = format!("message {number} took effect and never started");
            self.broken(Rule::Phantom, what, [record.clone()]);
        }
        match effect {
            Effect::Stale => {
                let runs = self.runs.of(index).iter_mut().rev();
                let mut runs = runs.filter(|run| run.token == token);
                if let Some(run) = runs.next() {
                    run.stale = true;
                }
            }
            Effect::Accepted => {
                self.progress.effect(record);
                self.keep_accepted(record, index, token);
            }
        }
    }

    pub(super) fn ended(&mut self, record: &Record, number: u64, attempt: u32, how: Ending) {
        let Some(index) = self.known(record, number) else {
            return;
        };
        let name = Name {
            message: index,
            attempt,
            process: record.process,
        };
        self.leave_turn(name);
        let Some(run) = self.runs.end(name) else {
            return;
        };
        if let Some(last) = &mut self.messages[index].last
            && (last.attempt, last.process) == (attempt, record.process)
        {
            last.ended = Some(how);
        }
        match how {
            Ending::Cancelled => self.cancelled(record, index, &run),
            Ending::Succeeded => self.succeeded(record, index, &run),
            // Sending may have failed, and then it starts again. Its effect counts.
            Ending::SucceededIfSent => self.messages[index].handled = true,
            Ending::Refused => {
                self.completed(record, index, &run);
            }
            Ending::Failed | Ending::Panicked => {}
        }
        if how != Ending::Cancelled && !self.overlap_is_excused(index, &run) {
            self.overlapped(record.at, index, &run);
        }
    }

    fn succeeded(&mut self, record: &Record, index: usize, run: &Run) {
        let message = &mut self.messages[index];
        let session = message.session.map(|session| session as usize);
        let outgrown = session.is_some_and(|session| self.sessions.all[session].token > run.token);
        if run.stale || outgrown {
            message.fenced = true;
            // It took effect, so its id is done, whoever has the session by now.
            if let (false, Some(id)) = (run.stale, message.id) {
                self.ids.all[id as usize].last_done = Some(record.at);
            }
            return;
        }
        message.handled = true;
        let id = message.id;
        let done = self.completed(record, index, run);
        if let Some(id) = id {
            let id = &mut self.ids.all[id as usize];
            id.last_done = Some(record.at);
            id.done = Some(done);
        }
    }

    /// This copy of a message does not start again.
    fn completed(&mut self, record: &Record, index: usize, run: &Run) -> Done {
        let done = Done {
            process: run.process,
            started: run.at,
            ended: record.at,
        };
        let message = &mut self.messages[index];
        message.finals += 1;
        message.done = Some(done);
        done
    }

    /// Somebody must have had a reason.
    fn cancelled(&mut self, record: &Record, index: usize, run: &Run) {
        let message = &self.messages[index];
        let hangs = message.fate == Fate::Hang;
        if hangs || self.faults.near(run.at) || self.processes.stopping(run.process) {
            return;
        }
        let number = message.number;
        let what = format!("message {number} was cancelled with no fault near");
        let records = vec![run.record(number), record.clone()];
        let violation = Violation::new(Rule::Cancelled, what, records);
        let unless = Unless::Killed {
            process: run.process,
            by: record.at + NOTICE,
        };
        self.findings.suspect(record.at, unless, violation);
    }

    /// Whether the one that started beside this start had a reason to, where this one went on.
    fn overlap_is_excused(&self, index: usize, run: &Run) -> bool {
        let message = &self.messages[index];
        // The lock of a living process can be lost, and it learns of that later. In a session its
        // successor then has a larger token.
        let until = run.overlapped.as_deref().map_or(run.at, |newer| newer.at);
        let lost = self.faults.between(run.at, until);
        let lost = lost && (message.session.is_none() || run.outgrown());
        run.overlapped.is_none() || run.stale || lost
    }

    fn overlapped(&mut self, at: Duration, index: usize, run: &Run) {
        let Some(newer) = run.overlapped.clone() else {
            return;
        };
        let message = &self.messages[index];
        let what = match (message.session, message.id) {
            (Some(session), _) => {
                let key = self.sessions.all[session as usize].key;
                format!("two messages of session {key} at the same time")
            }
            (None, Some(id)) => {
                let dedup = self.ids.all[id as usize].dedup;
                format!("two messages of id {dedup} at the same time")
            }
            (None, None) => format!("message {} twice at the same time", message.number),
        };
        let records = vec![run.record(message.number), *newer];
        let violation = Violation::new(Rule::Overlap, what, records);
        let alone = message.session.is_none() && message.id.is_none();
        let since = message.published;
        match self.rules.may_copy && alone {
            true => self
                .findings
                .suspect(at, Unless::AnyKilled { since }, violation),
            false => self.findings.add(violation),
        }
    }

    /// What has not ended by now never will. Where another started beside it, its process must have
    /// died by then, or shortly after.
    pub(super) fn end_all(&mut self) {
        for (index, run) in self.runs.drain() {
            let newer = run.overlapped.as_deref().map_or(run.at, |newer| newer.at);
            let dead = self.faults.killed_by(run.process, newer + NOTICE);
            if !dead && !self.overlap_is_excused(index, &run) {
                self.overlapped(newer, index, &run);
            }
        }
    }
}
