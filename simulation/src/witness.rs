//! What the checker does not know of: states of sessions, replies, what handlers published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_testing::history::{Effect, Ending, Event, Record};

use crate::{catalogue::Catalogue, job::Job};

/// What was seen that the history has no words for.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    sights: Mutex<Vec<Sight>>,
    wrongs: Mutex<Vec<String>>,
}

/// The state of a session as a start saw it: the messages that were completed before.
#[derive(Debug, Clone)]
struct Sight {
    at: Duration,
    message: u64,
    attempt: u32,
    token: u64,
    list: Vec<u64>,
}

/// The state of each session when all was done.
pub(crate) type States = BTreeMap<(usize, u64), Vec<u64>>;

impl Witness {
    /// A handler saw this state.
    pub(crate) fn saw(&self, at: Duration, job: &Job, attempt: u32, token: u64, list: &[u64]) {
        lock(&self.sights).push(Sight {
            at,
            message: job.number,
            attempt,
            token,
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
            let of = |item: &&std::sync::Arc<crate::items::Item>| {
                item.queue == *queue && item.job.key == Some(*key) && item.job.stateful
            };
            let of_session: Vec<&Job> = catalogue.items().filter(of).map(|i| &i.job).collect();
            check_list(*key, &of_session, last, &ends, &mut wrongs);
            for sight in lock(&self.sights).iter() {
                if of_session.iter().any(|job| job.number == sight.message) {
                    check_sight(sight, last, &mut wrongs);
                }
            }
        }
        for item in catalogue.items() {
            let (parent, Some(child)) = (item.job.number, item.job.child) else {
                continue;
            };
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
fn check_list(key: u64, session: &[&Job], list: &[u64], ends: &Ends, wrongs: &mut Vec<String>) {
    let listed: BTreeSet<u64> = list.iter().copied().collect();
    for job in session {
        let number = job.number;
        if ends.is_done(number) && !listed.contains(&number) {
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
    let again = |number: &u64| ends.redriven.contains(number);
    let mut seqs = BTreeMap::new();
    for job in session {
        seqs.insert(job.number, job.seq);
    }
    let once: Vec<u64> = list.iter().copied().filter(|n| !again(n)).collect();
    let places: Vec<Option<&u64>> = once.iter().map(|number| seqs.get(number)).collect();
    if places.iter().any(Option::is_none) || !places.is_sorted_by(|a, b| a < b) {
        wrongs.push(format!(
            "the state of session {key} is out of order: {list:?}"
        ));
    }
}

/// What a start saw has to be the beginning of what there is at last.
fn check_sight(sight: &Sight, last: &[u64], wrongs: &mut Vec<String>) {
    if !last.starts_with(&sight.list) {
        wrongs.push(format!(
            "a start saw a state that never was: {sight:?}, at last {last:?}"
        ));
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
