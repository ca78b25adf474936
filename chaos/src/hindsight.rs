//! What follows from a whole history and from no line of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::Duration,
};

use longshore_testing::{
    checker::{Report, Rule, Violation},
    history::{self, Answer, Effect, Ending, Event, Record, Recorder},
};

use crate::{item::Item, plan::Plan};

/// Everything is done: what a completed message has published on is confirmed then, although nobody
/// was told. Adds that to the history.
///
/// # Errors
/// What the file system says.
pub(crate) fn follow_ups(plan: &Plan, path: &Path, history: &Recorder) -> io::Result<()> {
    let (mut done, mut dead, mut tried) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for record in history::read(path)? {
        match record?.event {
            Event::End {
                message,
                how: Ending::SucceededIfSent,
                ..
            } => drop(done.insert(message)),
            Event::Dead { message, .. } => drop(dead.insert(message)),
            Event::Publish(publish) => drop(tried.insert(publish.message)),
            _ => {}
        }
    }
    for parent in done.difference(&dead) {
        let Some(child) = Item::new(plan, *parent).follow_up(plan) else {
            continue;
        };
        let message = child.number;
        if tried.contains(&message) {
            let answer = Answer::Confirmed;
            history.add(Event::Answered { message, answer })?;
        }
    }
    Ok(())
}

/// Looks at the states that handlers of sessions saw: each must be what the last message before it
/// that took effect has left. One that took effect and became a dead letter all the same may have left
/// its own or not.
///
/// # Errors
/// What the file system says.
pub(crate) fn states(plan: &Plan, path: &Path, report: &mut Report) -> io::Result<()> {
    // Session, then place there.
    let mut effects: BTreeMap<u64, BTreeMap<u64, (u64, Duration)>> = BTreeMap::new();
    let (mut dead, mut redriven) = (BTreeSet::new(), BTreeSet::new());
    let mut saw: Vec<(Record, u64, Option<u64>)> = Vec::new();
    for record in history::read(path)? {
        let record = record?;
        match record.event {
            Event::Effect {
                message,
                effect: Effect::Accepted,
                ..
            } => {
                let item = Item::new(plan, message);
                if let Some(key) = item.key {
                    let of_key = effects.entry(key).or_default();
                    of_key.entry(item.seq).or_insert((message, record.at));
                }
            }
            Event::Saw { message, last } => saw.push((record, message, last)),
            Event::Dead { message, .. } => drop(dead.insert(message)),
            Event::Redriven { message } => drop(redriven.insert(message)),
            _ => {}
        }
    }
    for (record, message, last) in saw {
        let item = Item::new(plan, message);
        let Some(of_key) = item.key.and_then(|key| effects.get(&key)) else {
            continue;
        };
        // What was stored late, as an unknown publish may be, had no effect by then.
        let by_then =
            |(_, (message, at)): (&u64, &(u64, Duration))| (*at < record.at).then_some(*message);
        let before = || of_key.range(..item.seq).rev().filter_map(by_then);
        // What is sent back comes out of its order.
        if redriven.contains(&message) || before().any(|other| redriven.contains(&other)) {
            continue;
        }
        let sure = before().find(|other| !dead.contains(other));
        let maybe: Vec<u64> = before().take_while(|other| Some(*other) != sure).collect();
        if last != sure && !last.is_some_and(|last| maybe.contains(&last)) {
            report.violations.push(Violation {
                rule: Rule::Seen,
                what: format!(
                    "message {message} saw the state that {last:?} has left, and that of {sure:?} is the last"
                ),
                records: vec![record],
            });
        }
    }
    Ok(())
}
