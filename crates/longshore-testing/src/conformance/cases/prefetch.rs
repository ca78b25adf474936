//! P9: load levelling.

use std::{sync::Arc, time::Duration};

use longshore_core::Verdict;

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, numbered},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p9_unsettled_deliveries_never_exceed_the_prefetch,
    p9_every_verdict_makes_room,
    p9_a_raised_prefetch_lets_more_in,
    p9_a_lowered_prefetch_drains_first,
    p9_a_prefetch_of_one_is_one_at_a_time,
    p9_a_burst_stays_in_the_broker_for_others,
    p9_no_more_come_than_were_asked_for,
];

async fn p9_unsettled_deliveries_never_exceed_the_prefetch(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..50))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 8).await;
    let mut held = consumer.take(8).await;
    consumer.silent(SILENCE).await;
    for batch in [3, 1, 8, 5] {
        let rest = held.split_off(batch);
        consumer.complete_all(held).await;
        held = rest;
        held.extend(consumer.take(batch).await);
        consumer.silent(Duration::from_millis(200)).await;
        assert_eq!(held.len(), 8);
    }
}

async fn p9_every_verdict_makes_room(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 1).await;
    let dead = Verdict::DeadLetter {
        reason: longshore_core::Reason::Permanent,
        detail: String::new(),
    };
    let retry = Verdict::Retry {
        after: Duration::ZERO,
    };
    for verdict in [
        Verdict::Complete,
        retry,
        dead,
        Verdict::Release {
            after: Duration::ZERO,
        },
        Verdict::Complete,
    ] {
        let delivery = consumer.next().await;
        consumer.silent(Duration::from_millis(200)).await;
        consumer.settle(delivery, verdict).await.must("settling");
    }
    consumer.drain(7).await;
    consumer.silent(SILENCE).await;
}

async fn p9_a_raised_prefetch_lets_more_in(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..40))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 4).await;
    let mut held = consumer.take(4).await;
    consumer.silent(Duration::from_millis(200)).await;
    consumer
        .source
        .set_prefetch(16)
        .must("raising the prefetch");
    held.extend(consumer.take(12).await);
    consumer.silent(SILENCE).await;
    consumer.complete_all(held).await;
    consumer.drain(24).await;
}

async fn p9_a_lowered_prefetch_drains_first(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..40))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 16).await;
    let mut held = consumer.take(16).await;
    consumer
        .source
        .set_prefetch(4)
        .must("lowering the prefetch");
    let refused = consumer.source.set_prefetch(0);
    assert!(
        refused.is_err(),
        "a prefetch of 0 means no limit on some brokers"
    );
    let rest = held.split_off(12);
    consumer.complete_all(held).await;
    consumer.silent(SILENCE).await;
    let mut held = rest;
    let first = held.remove(0);
    consumer.complete(first).await;
    held.extend(consumer.take(1).await);
    consumer.silent(SILENCE).await;
    consumer.complete_all(held).await;
    consumer.drain(23).await;
}

async fn p9_a_prefetch_of_one_is_one_at_a_time(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..5))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 1).await;
    for _ in 0..5 {
        let delivery = consumer.next().await;
        consumer.silent(Duration::from_millis(100)).await;
        consumer.complete(delivery).await;
    }
}

async fn p9_a_burst_stays_in_the_broker_for_others(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut first = Consumer::with_prefetch(&stage, &topology, 5).await;
    stage.publish(all_to(&topology, numbered(0..100))).await;
    let held = first.take(5).await;
    stage
        .until_stats(&topology, "95 ready", |stats| {
            stats.ready == 95 && stats.in_flight.unwrap_or(5) == 5
        })
        .await;
    let other = stage.open().await;
    let mut second = Consumer::on(&*other, subscription(&stage, &topology)).await;
    second.drain(95).await;
    first.complete_all(held).await;
}

async fn p9_no_more_come_than_were_asked_for(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..20))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut taken = Vec::new();
    for max in [1, 3, 2, 7, 100] {
        // `batch` itself sees that no more than `max` come.
        let batch = consumer
            .batch(max, Duration::from_secs(5))
            .await
            .must("more");
        let batch = batch.must("receiving");
        assert!(!batch.is_empty(), "the source ended by itself");
        taken.extend(batch);
    }
    consumer.complete_all(taken).await;
}
