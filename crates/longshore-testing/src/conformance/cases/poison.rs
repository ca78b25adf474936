//! P5: poison hurts nobody else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use longshore_core::{ErrorKind, Reason, Subscription, Verdict};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, message, number, numbered, to},
    must::Must,
    stage::Stage,
};

cases![
    p5_the_starts_of_a_message_that_kills_its_process_are_all_counted,
    p5_a_suspect_whose_start_was_not_noted_loses_no_attempt,
    p5_noting_the_start_of_a_lost_delivery_is_stale,
    p5_neighbours_of_a_killer_lose_at_most_two_attempts_and_are_all_handled,
];

/// A broker that counts the deaths of processes by itself needs no note and shows no suspects; then
/// its attempts alone have to be right.
async fn p5_the_starts_of_a_message_that_kills_its_process_are_all_counted(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("killer"))]).await;
    for attempt in 1..=6 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let delivery = consumer.next().await;
        assert_eq!(delivery.attempt, attempt);
        consumer.start(&delivery).await;
        if attempt == 6 {
            consumer.complete(delivery).await;
        }
    }
}

async fn p5_a_suspect_whose_start_was_not_noted_loses_no_attempt(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("suspect"))]).await;
    let mut before = None;
    for _ in 0..6 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let delivery = consumer.next().await;
        if delivery.suspect {
            let known = before.get_or_insert(delivery.attempt);
            assert_eq!(delivery.attempt, *known, "handed out, but never started");
        }
    }
}

async fn p5_noting_the_start_of_a_lost_delivery_is_stale(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("held"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let held = consumer.next().await;
    let receipt = held.receipt;
    consumer.complete(held).await;
    let mut answers = consumer.settler.start(&[(receipt, 2)]).await;
    let error = answers
        .pop()
        .must("an answer")
        .err()
        .must("a start without a lock");
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

async fn p5_neighbours_of_a_killer_lose_at_most_two_attempts_and_are_all_handled(
    stage: Arc<Stage>,
) {
    const MOST: u32 = 5;
    const KILLER: usize = 17;
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..60))).await;
    let mut handled: BTreeMap<usize, u32> = BTreeMap::new();
    let mut starts = 0;
    let mut dead = false;
    while handled.len() < 59 || !dead {
        let process = stage.open().await;
        let subscription = Subscription {
            prefetch: 16,
            ..subscription(&stage, &topology)
        };
        let mut consumer = Consumer::on(&*process, subscription).await;
        while handled.len() < 59 || !dead {
            let delivery = consumer.next().await;
            let (number, attempt) = (number(&delivery.envelope), delivery.attempt);
            if number == KILLER && attempt > MOST {
                let verdict = Verdict::DeadLetter {
                    reason: Reason::Crashed,
                    detail: String::new(),
                };
                consumer
                    .settle(delivery, verdict)
                    .await
                    .must("dead-lettering");
                dead = true;
                continue;
            }
            consumer.start(&delivery).await;
            if number == KILLER {
                starts += 1;
                break;
            }
            assert!(
                attempt <= 3,
                "message {number} only sat beside the killer: attempt {attempt}"
            );
            handled.insert(number, attempt);
            consumer.complete(delivery).await;
        }
    }
    assert!(starts <= MOST, "the killer started {starts} times");
    let mut last = Consumer::of(&stage, &topology).await;
    if stage.duplicates() {
        while let Some(copy) = last.maybe(Duration::from_secs(2)).await {
            last.complete(copy).await;
        }
        let dead = stage.stats(&topology).await.dead;
        assert!((1..=2).contains(&dead), "{dead} dead letters of one killer");
    } else {
        last.silent(stage.lock() + Duration::from_secs(1)).await;
        assert_eq!(stage.stats(&topology).await.dead, 1);
    }
}
