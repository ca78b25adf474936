//! P15: graceful stop.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, number, numbered},
    stage::{GRACE, SILENCE, Stage},
};

cases![
    p15_a_stopped_source_gives_out_what_has_arrived_and_ends,
    p15_a_stopped_source_takes_nothing_more,
    p15_deliveries_can_be_settled_after_stop,
    p15_what_is_given_back_is_available_elsewhere_within_a_second,
    p15_stopping_wakes_who_waits,
    p15_another_subscription_goes_on_after_one_was_stopped,
];

async fn p15_a_stopped_source_gives_out_what_has_arrived_and_ends(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..20))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 10).await;
    let held = consumer.take(3).await;
    consumer.source.stop();
    let mut left = 0;
    loop {
        let Some(batch) = consumer.batch(4, Duration::from_secs(10)).await else {
            panic!("a stopped source must end");
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => panic!("a stopped source ends without an error: {error}"),
        };
        if batch.is_empty() {
            break;
        }
        left += batch.len();
        consumer.complete_all(batch).await;
    }
    assert!(left <= 7, "{left} more than the prefetch allows");
    consumer.complete_all(held).await;
    consumer.ended().await;
    drop(consumer);
    let mut heir = Consumer::of(&stage, &topology).await;
    heir.drain(17 - left).await;
    heir.silent(SILENCE).await;
}

async fn p15_a_stopped_source_takes_nothing_more(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut stopped = Consumer::of(&stage, &topology).await;
    stopped.stop_empty().await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    stopped.ended().await;
    let mut other = Consumer::of(&stage, &topology).await;
    other.drain(10).await;
    stopped.source.stop();
    stopped.ended().await;
}

async fn p15_deliveries_can_be_settled_after_stop(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..4))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 4).await;
    let mut held = consumer.take(4).await;
    consumer.stop_empty().await;
    // Handlers may run on for longer than a lock lasts.
    tokio::time::sleep(stage.lock().mul_f64(1.5)).await;
    let (last, third) = (held.remove(3), held.remove(2));
    consumer.complete_all(held).await;
    consumer.retry(third, Duration::ZERO).await;
    consumer.release(last).await;
    assert!(
        consumer.lost().await.is_empty(),
        "locks are kept after stop"
    );
    let mut heir = Consumer::of(&stage, &topology).await;
    let mut attempts: Vec<_> = heir.drain(2).await.iter().map(|d| d.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2]);
    heir.silent(SILENCE).await;
}

async fn p15_what_is_given_back_is_available_elsewhere_within_a_second(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..16))).await;
    let mut stopping = Consumer::with_prefetch(&stage, &topology, 16).await;
    let first = stopping.take(8).await;
    let other = stage.open().await;
    let mut heir = Consumer::on(&*other, subscription(&stage, &topology)).await;
    let mut known = Vec::new();
    // Where the source reads nothing ahead, the other has had its half already.
    while let Some(early) = heir.maybe(Duration::from_millis(300)).await {
        known.push(number(&early.envelope));
        heir.complete(early).await;
    }
    stopping.source.stop();
    for delivery in first {
        stopping.release(delivery).await;
    }
    stopping.stop_then_release().await;
    let given_back = Instant::now();
    for delivery in heir.take(16 - known.len()).await {
        assert_eq!(delivery.attempt, 1, "giving back costs no attempt");
        known.push(number(&delivery.envelope));
        heir.complete(delivery).await;
    }
    let waited = given_back.elapsed();
    assert!(
        waited <= Duration::from_secs(1) + GRACE / 2,
        "available after {waited:?}"
    );
    known.sort_unstable();
    assert!(known.into_iter().eq(0..16), "each of them once");
    drop(stopping);
    heir.silent(SILENCE).await;
}

async fn p15_stopping_wakes_who_waits(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.silent(Duration::from_millis(100)).await;
    let from = Instant::now();
    consumer.stop_empty().await;
    assert!(
        from.elapsed() < Duration::from_secs(2),
        "ended after {:?}",
        from.elapsed()
    );
}

async fn p15_another_subscription_goes_on_after_one_was_stopped(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut one = Consumer::of(&stage, &topology).await;
    let mut other = Consumer::of(&stage, &topology).await;
    one.stop_empty().await;
    drop(one);
    for round in 0..3 {
        stage
            .publish(all_to(&topology, numbered(round * 5..round * 5 + 5)))
            .await;
        other.drain(5).await;
        let mut brief = Consumer::of(&stage, &topology).await;
        brief.stop_empty().await;
    }
}
