//! The end: what became of every message.

use super::{
    Checker,
    findings::SETTLING,
    messages::Message,
    report::{Figures, Rule, Violation},
};
use crate::history::{Event, Publish, Record};

/// From the first to the last message that was kept, of one publisher and queue.
#[derive(Debug, Clone, Copy, Default)]
struct Kept(Option<(usize, usize)>);

impl Checker {
    /// Every message that was confirmed is somewhere. `read` says that all there is has been read.
    pub(super) fn account(&mut self, read: bool) {
        let mut kept = vec![Kept::default(); self.messages.streams.len()];
        let mut lost = Vec::new();
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            let happened = message.attempts.highest() > 0 || message.dead > 0 || message.left;
            if message.stored() == 0 && happened {
                let what = format!("message {} was not stored, so it was said", message.number);
                let published = self.publish_record(message);
                self.broken(Rule::Refused, what, [published]);
            }
            let message = &self.messages[index];
            let found = message.handled || message.dead > 0;
            self.figures.recovered += u64::from(message.confirmed == 0 && found);
            self.figures.copies += surplus(message);
            if message.confirmed == 0 && message.redrives == 0 {
                if read && message.duplicates > 0 && !found && !self.suppressed(message, true) {
                    let number = message.number;
                    let what = format!("message {number} is a duplicate of nothing that was done");
                    let published = self.publish_record(message);
                    self.broken(Rule::Suppressed, what, [published]);
                }
            } else if found || message.left || self.suppressed(message, false) {
                let Kept(range) = &mut kept[message.stream as usize];
                let first = range.map_or(index, |(first, _)| first);
                *range = Some((first, index));
            } else {
                lost.push(index);
            }
        }
        if read {
            for index in lost {
                self.lose(index, kept[self.messages[index].stream as usize]);
            }
        }
    }

    /// Whether another message of its id explains that nothing happened to this one.
    fn suppressed(&self, message: &Message, answered: bool) -> bool {
        let Some(id) = message.id else { return false };
        let id = &self.ids.all[id as usize];
        let done = id.last_done.is_some_and(|done| {
            let settling = match self.faults.disturbed(done) {
                true => self.rules.aftermath,
                false => SETTLING,
            };
            done + self.rules.dedup_window + settling >= message.published
        });
        done || (answered && id.set_aside)
    }

    fn lose(&mut self, index: usize, kept: Kept) {
        let (place, count) = place(&mut self.figures, index, kept);
        *count += 1;
        let message = &self.messages[index];
        let (publisher, queue) = &self.messages.streams[message.stream as usize];
        let fenced = match message.fenced {
            true => ", and only an owner that was one no more succeeded",
            false => "",
        };
        let number = message.number;
        let what = format!(
            "message {number} to {queue} was confirmed to process {publisher} and is gone{fenced}; \
             it comes {place}"
        );
        let published = self.publish_record(message);
        let violation = Violation::new(Rule::Lost, what, vec![published]);
        self.findings.add(violation);
    }

    /// The line of its first publish.
    pub(super) fn publish_record(&self, message: &Message) -> Record {
        let (process, queue) = &self.messages.streams[message.stream as usize];
        let key = message
            .session
            .map(|session| self.sessions.all[session as usize].key);
        let dedup = message.id.map(|id| self.ids.all[id as usize].dedup);
        Record {
            at: message.published,
            process: *process,
            event: Event::Publish(Publish {
                message: message.number,
                queue: queue.clone(),
                key,
                seq: message.seq,
                dedup,
                delay: message.delay,
                fate: message.fate,
            }),
        }
    }

    /// What the run should have seen.
    pub(super) fn want_evidence(&mut self, drained: bool) -> Vec<String> {
        let (wanted, seen) = (&self.rules.evidence, &self.figures);
        let counts = [
            ("faults", wanted.faults, seen.faults),
            ("redeliveries", wanted.redeliveries, seen.redeliveries),
            ("unknown publishes", wanted.unknown, seen.unknown),
            ("owner changes", wanted.owner_changes, seen.owner_changes),
            ("kills", wanted.kills, seen.kills),
        ];
        let mut missing: Vec<String> = counts
            .into_iter()
            .filter(|(_, wanted, seen)| seen < wanted)
            .map(|(name, wanted, seen)| format!("{seen} {name} of {wanted}"))
            .collect();
        if wanted.drained && !drained {
            missing.push("a drain to the end".to_owned());
        }
        missing
    }
}

/// Copies that a crash must have left.
fn surplus(message: &Message) -> u64 {
    let copies = message.copies();
    let starts = message.attempts.most().saturating_sub(copies);
    let dead = u32::from(message.dead).saturating_sub(copies);
    u64::from(starts.max(dead))
}

fn place(figures: &mut Figures, index: usize, Kept(range): Kept) -> (&'static str, &mut u64) {
    match range {
        Some((first, _)) if index > first => match range {
            Some((_, last)) if index < last => {
                ("between others that were kept", &mut figures.lost_between)
            }
            _ => ("after all that was kept", &mut figures.lost_after),
        },
        _ => ("before all that was kept", &mut figures.lost_before),
    }
}
