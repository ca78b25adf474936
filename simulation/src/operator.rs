//! What an operator does, and a forger.

use std::{collections::BTreeMap, sync::Arc};

use longshore::{ErrorKind, Queue, Text};
use longshore_core::{StateWrite, Topology};
use longshore_testing::history::Event;

use crate::{
    catalogue::{self, Catalogue},
    scenario::Shape,
    world::{OPERATOR, World},
};

/// How many dead letters are sent back at a time.
const SOME: usize = 5;
const MANY: usize = 10_000;

/// Sends some dead letters of each queue back.
pub(crate) async fn redrive(world: &World) {
    let (client, _faults) = world.connect(OPERATOR);
    for queue in &world.queues {
        let letters = client.dead_letters(queue);
        for letter in letters.list(None, SOME).await.unwrap_or_default() {
            let Some(message) = Catalogue::number(&letter.envelope) else {
                continue;
            };
            world.diary.add(0, Event::Redriven { message });
            match letters.redrive(&letter.id).await {
                Err(error) if !error.is_transient() => {
                    let text = format!("{message} could not be sent back: {error}");
                    world.witness.wrong(text);
                }
                _ => {}
            }
        }
    }
}

/// Brings every session back.
pub(crate) async fn bring_back(world: &World) {
    for (queue, shape) in sessions(world) {
        for key in keys(world, shape) {
            let of = catalogue::key(key);
            if let Err(error) = world.observer.bring_back_session(queue, of).await {
                world
                    .witness
                    .wrong(format!("{key} was not brought back: {error}"));
            }
        }
    }
}

/// Writes states under tokens that are no longer in force; none may be written.
pub(crate) async fn forge(world: &World) {
    let Some(store) = world.store() else {
        return;
    };
    for (partition, token) in tokens(world) {
        let Some(forged) = token.checked_sub(1) else {
            continue;
        };
        let scope = Text::from(partition.clone());
        let write = StateWrite {
            key: catalogue::key(0),
            message: "forged".into(),
            token: forged,
            value: Some("[0]".into()),
        };
        match store.save(&scope, &write).await {
            Err(error) if error.kind() == ErrorKind::Stale => {}
            other => world.witness.wrong(format!(
                "{partition} had the token {token}, and a write with {forged} was answered {other:?}"
            )),
        }
    }
}

/// The largest token of each partition that a handler has seen.
fn tokens(world: &World) -> BTreeMap<String, u64> {
    let mut tokens = BTreeMap::<String, u64>::new();
    world.diary.each(|record| {
        if let Event::Owns { partition, token } = &record.event {
            let largest = tokens.entry(partition.clone()).or_default();
            *largest = (*largest).max(*token);
        }
    });
    tokens
}

/// Queues with sessions.
pub(crate) fn sessions(world: &World) -> impl Iterator<Item = (&Queue, &Shape)> {
    let all = world.queues.iter().zip(&world.scenario.queues);
    all.filter(|(_, shape)| shape.partitions() > 0)
}

/// The keys of a queue.
pub(crate) fn keys(world: &World, shape: &Shape) -> Vec<u64> {
    let items = world.catalogue.items();
    let of = items.filter(|item| world.scenario.queues[item.queue].name == shape.name);
    let mut keys: Vec<u64> = of.filter_map(|item| item.job.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Everything that is dead, written down.
pub(crate) async fn read_dead(world: &Arc<World>) {
    for queue in &world.queues {
        let letters = world.observer.dead_letters(queue);
        for letter in letters.list(None, MANY).await.unwrap_or_default() {
            let Some(message) = Catalogue::number(&letter.envelope) else {
                let text = format!("a dead letter of {} has no number", queue.name());
                world.witness.wrong(text);
                continue;
            };
            let item = world.catalogue.item(message);
            let here = item.is_some_and(|i| world.scenario.queues[i.queue].name == queue.name());
            let intact = here && world.catalogue.is_intact(message, &letter.envelope);
            world.diary.add(
                0,
                Event::Dead {
                    message,
                    reason: letter.reason.as_str().to_owned(),
                    attempts: letter.attempts,
                    intact,
                },
            );
        }
    }
}

/// The topology of a queue with sessions, by which its parts are named.
pub(crate) fn topology(queue: &Queue, shape: &Shape) -> Option<Topology> {
    let mut topology = Topology::new(longshore::Name::new(queue.name()).ok()?);
    topology.partitions = shape.partitions();
    Some(topology)
}
