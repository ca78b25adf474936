//! After the load: wait until nothing is left, read the dead letters.

use std::{collections::BTreeSet, time::Duration};

use longshore::{Client, DeadLetter, Stats};
use longshore_testing::{
    brokers::Broker,
    history::{Event, Recorder},
};
use tokio::time::Instant;

use crate::{
    Failure,
    item::Item,
    plan::{Kind, On, Plan},
    scene::WARM_UP,
};

/// How long everything may take to be done.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// How often nothing must be left, one look after the other: what is between two queues is in none.
const TIMES: u32 = 3;

/// Waits until nothing is queued, running or delayed.
///
/// # Errors
/// It takes longer than [`LIMIT`]; says what is left.
pub(crate) async fn emptied(
    client: &Client,
    plan: &Plan,
    broker: Option<&Broker>,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut empty = 0;
    loop {
        let mut left = left(client, plan).await;
        if let (true, On::Amqp, Some(broker)) = (left.is_empty(), plan.on, broker) {
            left = unsettled(broker).await;
        }
        empty = if left.is_empty() { empty + 1 } else { 0 };
        if empty == TIMES {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("not empty after {LIMIT:?}: {}", left.join(", ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn left(client: &Client, plan: &Plan) -> Vec<String> {
    let mut left = Vec::new();
    for kind in Kind::ALL {
        match client.stats(&kind.queue(plan)).await {
            Ok(stats) if waiting(&stats) == 0 => {}
            Ok(stats) => left.push(format!("{} {stats:?}", kind.name())),
            Err(error) => left.push(format!("{} {error}", kind.name())),
        }
    }
    left
}

/// What RabbitMQ tells no client: what is delayed, and what is not acknowledged.
async fn unsettled(broker: &Broker) -> Vec<String> {
    let list = ["list_queues", "--no-table-headers", "name", "messages"];
    let listed = match broker.rabbitmqctl(&list).await {
        Ok(listed) => listed,
        Err(error) => return vec![error.to_string()],
    };
    let waits = |line: &str| {
        let (name, messages) = line.split_once('\t')?;
        // Dead letters are read later; a marker is there as long as its partition.
        let stays = name.ends_with(".dlq") || name.ends_with(".marker") || name == WARM_UP;
        (!stays && messages != "0").then(|| line.replace('\t', " "))
    };
    listed.lines().filter_map(waits).collect()
}

fn waiting(stats: &Stats) -> u64 {
    stats.ready + stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0)
}

/// Notes every dead letter, and removes it: RabbitMQ hands out only the first thousand.
///
/// # Errors
/// They cannot be read, or one of them is nobody's.
pub(crate) async fn dead_letters(
    client: &Client,
    plan: &Plan,
    history: &Recorder,
) -> Result<(), Failure> {
    for kind in Kind::ALL {
        let queue = kind.queue(plan);
        let mut noted = Ok(());
        let mut seen = BTreeSet::new();
        while client.stats(&queue).await?.dead > 0 {
            let note = |letter: &DeadLetter| {
                if noted.is_ok() && seen.insert(letter.id.clone()) {
                    noted = note(letter, *kind, plan, history);
                }
                true
            };
            let dead = client.dead_letters(&queue);
            let progress = dead.discard_where(note, |_| {}).await?;
            if progress.done == 0 {
                let text = format!("the dead letters of {} stay: {progress:?}", kind.name());
                return Err(text.into());
            }
        }
        noted?;
    }
    Ok(())
}

fn note(letter: &DeadLetter, kind: Kind, plan: &Plan, history: &Recorder) -> Result<(), Failure> {
    let number = Item::number_of(&letter.envelope)
        .ok_or_else(|| format!("a dead letter of {} is nobody's: {letter:?}", kind.name()))?;
    let item = Item::new(plan, number);
    Ok(history.add(Event::Dead {
        message: number,
        reason: letter.reason.as_str().to_owned(),
        attempts: letter.attempts,
        intact: item.kind == kind && item.is_complete(letter),
    })?)
}
