//! What the checker does not know of: states of sessions, replies, what handlers published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use longshore_testing::history::{Answer, Effect, Ending, Event, Record};

use crate::{catalogue::Catalogue, items::Item, job::Job};

/// What was seen that the history has no words for.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    sights: Mutex<Vec<Sight>>,
    wrongs: Mutex<Vec<String>>,
}

/// The state of a session as a start saw it: the messages that were completed before.
#[derive(Debug, Clone)]
struct Sight {
    message: u64,
    list: Vec<u64>,
}

/// The state of each session when all was done.
pub(crate) type States = BTreeMap<(usize, u64), Vec<u64>>;

impl Witness {
    /// A handler saw this state.
    pub(crate) fn saw(&self, job: &Job, list: &[u64]) {
        lock(&self.sights).push(Sight {
            message: job.number,
            list: list.to_vec(),
        });
    }

    /// Something is not as it should be.
    pub(crate) fn wrong(&self, what: String) {
        lock(&self.wrongs).push(what);
    }

    /// Everything that is not as it should be.
    pub(crate) fn finish(
        &self,
        catalogue: &Catalogue,
        records: &[Record],
        states: &States,
    ) -> Vec<String> {
        let mut wrongs = std::mem::take(&mut *lock(&self.wrongs));
        let ends = Ends::of(records);
        for ((queue, key), last) in states {
            let of = |item: &&Item| {
                item.queue == *queue && item.job.key == Some(*key) && item.job.stateful
            };
            let all = catalogue.items().map(AsRef::as_ref);
            let session: Vec<&Item> = all.filter(of).collect();
            check_list(*key, &session, last, &ends, &mut wrongs);
            for sight in lock(&self.sights).iter() {
                if session.iter().any(|item| item.job.number == sight.message) {
                    check_sight(sight, &session, last, &mut wrongs);
                }
            }
        }
        for item in catalogue.items() {
            let (parent, Some(child)) = (item.job.number, item.job.child) else {
                continue;
            };
            // What it says it is may have been done by another, and then it publishes nothing.
            let same = |other: &&std::sync::Arc<Item>| {
                other.dedup == item.dedup && other.queue == item.queue
            };
            if item.dedup.is_some() && catalogue.items().filter(same).count() > 1 {
                continue;
            }
            if ends.is_done(parent) && !ends.took_effect.contains(&child) {
                let is_dead = ends.dead.contains(&child);
                if !is_dead {
                    wrongs.push(format!(
                        "{parent} is done, and {child}, which it published, was never handled"
                    ));
                }
            }
        }
        wrongs
    }
}

/// How messages ended.
#[derive(Debug, Default)]
struct Ends {
    succeeded: BTreeSet<u64>,
    took_effect: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    redriven: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
}

impl Ends {
    fn of(records: &[Record]) -> Self {
        let mut ends = Self::default();
        for record in records {
            match record.event {
                Event::End {
                    message,
                    how: Ending::Succeeded,
                    ..
                } => drop(ends.succeeded.insert(message)),
                Event::Effect {
                    message,
                    effect: Effect::Accepted,
                    ..
                } => drop(ends.took_effect.insert(message)),
                Event::Dead { message, .. } => drop(ends.dead.insert(message)),
                Event::Redriven { message } => drop(ends.redriven.insert(message)),
                Event::Answered {
                    message,
                    answer: Answer::Confirmed,
                } => drop(ends.confirmed.insert(message)),
                _ => {}
            }
        }
        ends
    }

    /// Handled, and no dead letter.
    fn is_done(&self, message: u64) -> bool {
        self.succeeded.contains(&message) && !self.dead.contains(&message)
    }
}

/// The last state of a session: everything that was completed, once, in the order of the session.
///
/// Two messages of one id are one to the state of a session, where the first was the last to write it.
fn check_list(key: u64, session: &[&Item], list: &[u64], ends: &Ends, wrongs: &mut Vec<String>) {
    let of = |number: &u64| session.iter().find(|item| item.job.number == *number);
    let listed: BTreeSet<u64> = list.iter().copied().collect();
    let ids: BTreeSet<u64> = list.iter().filter_map(|n| of(n)?.dedup).collect();
    for item in session {
        let number = item.job.number;
        let there = listed.contains(&number) || item.dedup.is_some_and(|id| ids.contains(&id));
        if ends.is_done(number) && !there {
            wrongs.push(format!(
                "{number} was completed, and the state of session {key} does not have it: {list:?}"
            ));
        }
        if listed.contains(&number) && !ends.succeeded.contains(&number) {
            wrongs.push(format!(
                "{number} never succeeded, and the state of session {key} has it: {list:?}"
            ));
        }
    }
    if list.iter().any(|number| of(number).is_none()) {
        wrongs.push(format!(
            "the state of session {key} is a stranger's: {list:?}"
        ));
    }
    let again = |number: &&u64| ends.redriven.contains(number);
    let in_order = list
        .iter()
        .filter(|n| ends.confirmed.contains(n) && !again(n));
    let places: Vec<u64> = in_order.filter_map(|n| Some(of(n)?.job.seq)).collect();
    if !places.is_sorted_by(|a, b| a < b) {
        wrongs.push(format!(
            "the state of session {key} is out of order: {list:?}"
        ));
    }
}

/// What a start saw has to be the beginning of what there is at last. A message with the id of the one
/// that wrote last, done after their window, has taken its place.
fn check_sight(sight: &Sight, session: &[&Item], last: &[u64], wrongs: &mut Vec<String>) {
    let id = |number: &u64| {
        let item = session.iter().find(|item| item.job.number == *number);
        item.and_then(|item| item.dedup).unwrap_or(*number)
    };
    let (seen, last_ids): (Vec<u64>, Vec<u64>) = (
        sight.list.iter().map(id).collect(),
        last.iter().map(id).collect(),
    );
    if !last_ids.starts_with(&seen) {
        wrongs.push(format!(
            "a start saw a state that never was: {sight:?}, at last {last:?}"
        ));
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
