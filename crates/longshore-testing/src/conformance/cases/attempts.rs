//! P4: attempts are counted by the broker, over all processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use longshore_core::{Ids, Reason, SeededIds, Verdict};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, message, number, numbered, to},
    must::Must,
    stage::Stage,
};

cases![
    p4_each_retry_is_one_more_attempt,
    p4_each_death_of_a_process_is_one_more_attempt,
    p4_attempts_are_the_same_for_every_process,
    p4_giving_back_what_never_started_costs_no_attempt,
    p4_neighbours_of_a_retried_message_lose_nothing,
    p4_a_message_starts_at_most_max_attempts_times,
];

async fn p4_each_retry_is_one_more_attempt(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("again"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for attempt in 1..=8 {
        let delivery = consumer.next().await;
        assert_eq!(delivery.attempt, attempt);
        consumer.start(&delivery).await;
        if attempt == 8 {
            consumer.complete(delivery).await;
        } else {
            consumer
                .retry(delivery, Duration::from_millis(30) * (attempt % 2))
                .await;
        }
    }
}

async fn p4_each_death_of_a_process_is_one_more_attempt(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("killer"))]).await;
    for attempt in 1..=4 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let delivery = consumer.next().await;
        assert_eq!(delivery.attempt, attempt, "{delivery:?}");
        consumer.start(&delivery).await;
        if attempt == 4 {
            consumer.complete(delivery).await;
        }
    }
}

async fn p4_attempts_are_the_same_for_every_process(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("travels"))]).await;
    for attempt in 1..=5 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let delivery = consumer.next().await;
        assert_eq!(delivery.attempt, attempt);
        consumer.start(&delivery).await;
        consumer.retry(delivery, Duration::ZERO).await;
        consumer.stop_then_release().await;
        drop(consumer);
        process.close(Duration::from_secs(2)).await;
    }
}

async fn p4_giving_back_what_never_started_costs_no_attempt(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("patient"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..4 {
        let delivery = consumer.next().await;
        assert_eq!(delivery.attempt, 1);
        consumer.release(delivery).await;
    }
    let delivery = consumer.next().await;
    consumer.retry(delivery, Duration::ZERO).await;
    for _ in 0..4 {
        let delivery = consumer.next().await;
        assert_eq!(
            delivery.attempt, 2,
            "a release keeps the attempts there were"
        );
        consumer.release(delivery).await;
    }
    let delivery = consumer.next().await;
    consumer.complete(delivery).await;
}

async fn p4_neighbours_of_a_retried_message_lose_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..30))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut done = 0;
    while done < 30 {
        let delivery = consumer.next().await;
        let (number, attempt) = (number(&delivery.envelope), delivery.attempt);
        if number % 10 == 3 && attempt < 4 {
            consumer.retry(delivery, Duration::ZERO).await;
            continue;
        }
        assert_eq!(
            attempt,
            if number % 10 == 3 { 4 } else { 1 },
            "message {number}"
        );
        consumer.complete(delivery).await;
        done += 1;
    }
}

/// What a worker does, with deaths, errors and clean stops at random.
async fn p4_a_message_starts_at_most_max_attempts_times(stage: Arc<Stage>) {
    const MOST: u32 = 5;
    let chance = SeededIds::new(4);
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..40))).await;
    let mut starts: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    let mut ended: BTreeSet<usize> = BTreeSet::new();
    let mut dead = 0;
    while ended.len() < 40 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let mut running = 0;
        for _ in 0..chance.next() % 12 + 1 {
            if ended.len() == 40 {
                break;
            }
            let delivery = if running == 0 {
                consumer.next().await
            } else if let Some(delivery) = consumer.maybe(Duration::from_millis(300)).await {
                delivery
            } else {
                // What is left may be what this process itself is running.
                break;
            };
            let number = number(&delivery.envelope);
            let noted = starts.entry(number).or_default();
            let again = ended.contains(&number) || noted.contains(&delivery.attempt);
            if again && stage.duplicates() {
                consumer.complete(delivery).await;
                ended.insert(number);
                continue;
            }
            if delivery.attempt > MOST {
                let verdict = Verdict::DeadLetter {
                    reason: Reason::Crashed,
                    detail: String::new(),
                };
                let settled = consumer.settle(delivery, verdict).await;
                settled.must("dead-lettering");
                ended.insert(number);
                dead += 1;
                continue;
            }
            consumer.start(&delivery).await;
            assert!(
                noted.iter().all(|n| *n < delivery.attempt),
                "{delivery:?} after {noted:?}"
            );
            noted.push(delivery.attempt);
            match chance.next() % 3 {
                0 => {
                    consumer.complete(delivery).await;
                    ended.insert(number);
                }
                1 => consumer.retry(delivery, Duration::from_millis(10)).await,
                // Still running when its process dies, or is stopped and drops it unfinished.
                _ => running += 1,
            }
        }
    }
    assert!(
        starts.values().all(|noted| noted.len() <= MOST as usize),
        "{starts:?}"
    );
    stage
        .until_stats(&topology, "the dead letters", |stats| {
            stats.dead == dead || stage.duplicates() && stats.dead > dead
        })
        .await;
}
