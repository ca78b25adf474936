//! The rules of one session: order, exclusion, fencing tokens.

use std::collections::HashMap;

use super::{
    Checker,
    messages::narrow,
    report::{Rule, Violation},
    runs::Name,
};
use crate::history::Record;

/// What is known of one session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: u64,
    /// One more than the largest place of a message that started. What came delayed or was redriven
    /// has no place.
    started: u64,
    /// The largest token a start had, and in which process.
    pub(super) token: u64,
    owner: u32,
    /// The largest token the ledger accepted.
    accepted: u64,
    running: Option<Name>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) all: Vec<Session>,
    by_key: HashMap<(u32, u64), u32>,
}

impl Sessions {
    pub(super) fn place(&mut self, queue: u32, key: u64) -> u32 {
        *self.by_key.entry((queue, key)).or_insert_with(|| {
            self.all.push(Session {
                key,
                started: 0,
                token: 0,
                owner: 0,
                accepted: 0,
                running: None,
            });
            narrow(self.all.len() - 1)
        })
    }
}

impl Checker {
    /// A message of a session starts. Says whether it is one of an owner that is none any more, of
    /// which nothing else is asked.
    pub(super) fn take_turn(&mut self, record: &Record, name: Name, token: u64) -> bool {
        let message = &self.messages[name.message];
        let in_its_place = message.delay.is_zero() && message.redrives == 0;
        let Some(index) = message.session.map(|session| session as usize) else {
            return false;
        };
        let session = &mut self.sessions.all[index];
        if token < session.token {
            let (larger, key) = (session.token, session.key);
            // A worker that was frozen or cut off learns of its loss after it goes on.
            if !self.faults.near(record.at) {
                let what = format!("session {key} started under token {token} after {larger}");
                self.broken(Rule::Fencing, what, [record.clone()]);
            }
            return true;
        }
        if token > 0 && token == session.token && session.owner != record.process {
            let (other, key) = (session.owner, session.key);
            let what = format!("token {token} of session {key} is used by process {other} too");
            self.broken(Rule::Fencing, what, [record.clone()]);
        }
        let session = &mut self.sessions.all[index];
        (session.token, session.owner) = (token, record.process);
        if in_its_place {
            self.keep_order(record, name.message, index);
        }
        let before = self.sessions.all[index].running.replace(name);
        if let Some(before) = before {
            self.overlap(before, record);
        }
        false
    }

    fn keep_order(&mut self, record: &Record, index: usize, session: usize) {
        let message = &mut self.messages[index];
        let session = &mut self.sessions.all[session];
        let (place, key) = (message.seq + 1, session.key);
        let started = session.started;
        session.started = started.max(place);
        if started <= place {
            return;
        }
        let later = started - 1;
        let (rule, how) = match message.last {
            None if message.confirmed > 0 => (Rule::Order, "for the first time"),
            // Nobody knew when it would be stored, so from now on it has no place.
            None => return message.late = true,
            Some(_) if message.late => return,
            Some(last) if self.rules.may_replay && self.faults.near(last.at) => {
                self.figures.replays += 1;
                return;
            }
            Some(_) => (Rule::Replay, "again"),
        };
        let seq = message.seq;
        let what = format!("number {seq} of session {key} starts {how} after number {later}");
        let published = self.publish_record(&self.messages[index]);
        self.broken(rule, what, [published, record.clone()]);
    }

    /// The effect of a message of a session was accepted.
    pub(super) fn keep_accepted(&mut self, record: &Record, message: usize, token: u64) {
        let message = &self.messages[message];
        let Some(session) = message.session else {
            return;
        };
        let session = &mut self.sessions.all[session as usize];
        let (accepted, key) = (session.accepted, session.key);
        session.accepted = accepted.max(token);
        if token < accepted {
            let what = format!("an effect of session {key} under token {token} after {accepted}");
            self.broken(Rule::Fencing, what, [record.clone()]);
        }
    }

    /// A start is over.
    pub(super) fn leave_turn(&mut self, name: Name) {
        let message = &self.messages[name.message];
        if let Some(session) = message.session {
            let running = &mut self.sessions.all[session as usize].running;
            running.take_if(|running| *running == name);
        }
        if let Some(id) = message.id {
            let running = &mut self.ids.all[id as usize].running;
            running.take_if(|running| *running == name);
        }
    }

    /// Something started while `older` had not ended: so it must turn out to be dead, cancelled or
    /// fenced off.
    pub(super) fn overlap(&mut self, older: Name, newer: &Record) {
        if let Some(run) = self.runs.get_mut(older) {
            run.overlapped
                .get_or_insert_with(|| Box::new(newer.clone()));
        }
    }

    pub(super) fn broken<const N: usize>(
        &mut self,
        rule: Rule,
        what: String,
        records: [Record; N],
    ) {
        self.findings
            .add(Violation::new(rule, what, records.into()));
    }
}
