//! P2: peek-lock.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, assert_same, laden, number, numbered, to},
    stage::{GRACE, SILENCE, Stage},
};

cases![
    p2_what_is_being_handled_is_hidden_from_others_for_as_long_as_it_takes,
    p2_locks_renew_while_deliveries_wait_in_the_prefetch_buffer,
    p2_a_dropped_source_gives_back_what_it_held_within_its_lock_and_a_second,
    p2_a_closed_transport_gives_back_what_it_held,
    p2_what_comes_back_is_the_same_message,
    p2_others_keep_their_deliveries_when_a_process_dies,
];

async fn p2_what_is_being_handled_is_hidden_from_others_for_as_long_as_it_takes(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    let mut holder = Consumer::of(&stage, &topology).await;
    let held = holder.take(10).await;
    let other = stage.open().await;
    let mut other = Consumer::on(&*other, subscription(&stage, &topology)).await;
    other.silent(stage.lock().mul_f64(2.5)).await;
    assert!(holder.lost().await.is_empty(), "no lock was lost");
    holder.complete_all(held).await;
    other.silent(stage.lock() + SILENCE).await;
}

async fn p2_locks_renew_while_deliveries_wait_in_the_prefetch_buffer(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 10).await;
    let first = consumer.next().await;
    tokio::time::sleep(stage.lock().mul_f64(2.5)).await;
    consumer.complete(first).await;
    for delivery in consumer.take(9).await {
        assert_eq!(delivery.attempt, 1, "waiting is no attempt: {delivery:?}");
        consumer.complete(delivery).await;
    }
    assert!(consumer.lost().await.is_empty(), "no lock was lost");
    consumer.silent(stage.lock() + SILENCE).await;
}

async fn p2_a_dropped_source_gives_back_what_it_held_within_its_lock_and_a_second(
    stage: Arc<Stage>,
) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    let mut dying = Consumer::with_prefetch(&stage, &topology, 10).await;
    let taken: Vec<_> = dying
        .take(5)
        .await
        .iter()
        .map(|d| number(&d.envelope))
        .collect();
    let other = stage.open().await;
    let died = Instant::now();
    drop(dying);
    let mut heir = Consumer::on(&*other, subscription(&stage, &topology)).await;
    // One after the other: a broker may hand out what died with its process one at a time.
    for _ in 0..10 {
        let delivery = heir.next().await;
        if taken.contains(&number(&delivery.envelope)) {
            assert_eq!(delivery.attempt, 2, "it had been handed out: {delivery:?}");
        } else {
            assert!(
                delivery.attempt <= 2,
                "it was in the buffer at most: {delivery:?}"
            );
        }
        heir.start(&delivery).await;
        heir.complete(delivery).await;
    }
    let waited = died.elapsed();
    let bound = stage.lock() + Duration::from_secs(1) + GRACE;
    assert!(
        waited <= bound,
        "back after {waited:?}, the bound is {bound:?}"
    );
}

async fn p2_a_closed_transport_gives_back_what_it_held(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..6))).await;
    let closing = stage.open().await;
    let mut holder = Consumer::on(&*closing, subscription(&stage, &topology)).await;
    let _held = holder.take(3).await;
    closing.close(Duration::from_secs(2)).await;
    let closed = Instant::now();
    let mut heir = Consumer::of(&stage, &topology).await;
    heir.drain(6).await;
    let bound = stage.lock() + Duration::from_secs(1) + GRACE;
    assert!(
        closed.elapsed() <= bound,
        "back after {:?}, the bound is {bound:?}",
        closed.elapsed()
    );
}

async fn p2_what_comes_back_is_the_same_message(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut dying = Consumer::of(&stage, &topology).await;
    dying.next().await;
    drop(dying);
    let mut heir = Consumer::of(&stage, &topology).await;
    let again = heir.next().await;
    assert_same(&sent, &again.envelope);
    heir.retry(again, Duration::ZERO).await;
    let again = heir.next().await;
    assert_same(&sent, &again.envelope);
    heir.release(again).await;
    let again = heir.next().await;
    assert_same(&sent, &again.envelope);
    heir.complete(again).await;
}

async fn p2_others_keep_their_deliveries_when_a_process_dies(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..8))).await;
    let mut living = Consumer::with_prefetch(&stage, &topology, 4).await;
    let held = living.take(4).await;
    let other = stage.open().await;
    let mut dying = Consumer::on(&*other, subscription(&stage, &topology)).await;
    dying.take(4).await;
    drop(dying);
    drop(other);
    let mut heir = Consumer::of(&stage, &topology).await;
    for delivery in heir.drain(4).await {
        let id = delivery.envelope.id;
        assert!(
            held.iter().all(|held| held.envelope.id != id),
            "taken from the living"
        );
    }
    assert!(living.lost().await.is_empty(), "the living lost nothing");
    living.complete_all(held).await;
    heir.silent(stage.lock() + SILENCE).await;
}
