//! Dead letters, and what is sent back from them.

use super::{
    Checker,
    findings::NOTICE,
    messages::Done,
    report::{Rule, Violation},
};
use crate::history::{Ending, Fate, Record};

impl Checker {
    pub(super) fn dead(
        &mut self,
        record: &Record,
        number: u64,
        reason: &str,
        attempts: u32,
        intact: bool,
    ) {
        self.figures.dead += 1;
        let Some(index) = self.known(record, number) else {
            return;
        };
        if !intact {
            let what = format!("dead letter {number} is not what was published");
            self.broken(Rule::Corrupt, what, [record.clone()]);
        }
        if let Some((rule, what)) = self.misjudged(index, reason, attempts) {
            let published = self.publish_record(&self.messages[index]);
            let records = vec![published, record.clone()];
            let what = format!("dead letter {number}, {reason}: {what}");
            self.findings.add(Violation::new(rule, what, records));
        }
        let message = &mut self.messages[index];
        message.dead += 1;
        if let Some(id) = message.id {
            self.ids.all[id as usize].set_aside = true;
        }
        let (dead, copies) = (u32::from(message.dead), message.copies());
        let published = message.published;
        if dead > copies && copies > 0 && !self.may_be_copied(published) {
            let what = format!("message {number} is {dead} dead letters, of {copies} copies");
            self.broken(Rule::DeadLetter, what, [record.clone()]);
        }
    }

    /// Why this reason does not fit.
    fn misjudged(&self, index: usize, reason: &str, attempts: u32) -> Option<(Rule, String)> {
        let fate = self.messages[index].fate;
        let wrong = |what: String| Some((Rule::DeadLetter, what));
        match reason {
            "exhausted" | "crashed" | "abandoned" => {
                if reason == "exhausted" && attempts != self.rules.max_attempts {
                    return wrong(format!("after {attempts} attempts"));
                }
                self.worn_out(index, reason)
            }
            "permanent" if fate == Fate::Refuse => None,
            "undecodable" | "no-handler" | "expired" | "too-large" | "hostile" | "key-missing"
                if fate == Fate::Unprocessable =>
            {
                None
            }
            "session-set-aside" if self.messages[index].session.is_some() => None,
            "permanent" | "undecodable" | "no-handler" | "expired" | "too-large" | "hostile"
            | "key-missing" | "session-set-aside" => wrong(format!("its fate is {fate:?}")),
            _ => wrong("no reason of Longshore's".to_owned()),
        }
    }

    /// Why a message has no business to have used up its attempts.
    fn worn_out(&self, index: usize, reason: &str) -> Option<(Rule, String)> {
        let message = &self.messages[index];
        let rules = &self.rules;
        let innocent = message.innocent(rules.max_attempts);
        let rule = match innocent {
            true => Rule::Innocent,
            false => Rule::DeadLetter,
        };
        let Some(last) = message.last else {
            // With one attempt nobody can tell on RabbitMQ whether what a dead process held had
            // started.
            let nobody_knows = rules.max_attempts == 1 && reason == "abandoned" && rules.may_copy;
            let most = rules.max_attempts.max(2);
            let stolen = rules.stolen_attempts + message.only_noted() >= most;
            // What no handler can read is noted, and seen to start by nobody.
            let unseen = message.fate == Fate::Unprocessable;
            let excused =
                (nobody_knows || stolen || unseen) && self.faults.disturbed(message.published);
            return (!excused).then(|| (Rule::Innocent, "it never started".to_owned()));
        };
        let highest = message.attempts.highest();
        if highest + rules.stolen_attempts + message.only_noted() < rules.max_attempts {
            return Some((rule, format!("after attempt {highest}")));
        }
        let copied = message.copies() > 1 || self.may_be_copied(message.published);
        let settled = |done: &Done| {
            let killed = self.faults.killed_by(done.process, done.ended + NOTICE);
            !killed && !self.may_be_unsettled(done)
        };
        let running = !self.faults.killed(last.process) && !self.faults.near(last.at);
        match last.ended {
            Some(Ending::Succeeded) if !copied && message.done.as_ref().is_some_and(settled) => {
                Some((Rule::DeadLetter, "its last start succeeded".to_owned()))
            }
            None if !copied && running => Some((rule, "its last start has not ended".to_owned())),
            _ => None,
        }
    }

    pub(super) fn redriven(&mut self, record: &Record, number: u64) {
        let Some(index) = self.known(record, number) else {
            return;
        };
        let message = &mut self.messages[index];
        message.redrives += 1;
        (message.noted, message.unstarted) = (0, 0);
        message.dead = 0;
        message.handled = false;
        message.fresh = true;
        if let Some(id) = message.id {
            self.ids.all[id as usize].set_aside = false;
        }
    }

    pub(super) fn still_queued(&mut self, record: &Record, number: u64) {
        self.figures.left += 1;
        let Some(index) = self.known(record, number) else {
            return;
        };
        let message = &mut self.messages[index];
        message.left = true;
        if let Some(id) = message.id {
            self.ids.all[id as usize].set_aside = true;
        }
    }
}
