//! P12: giving a message back for later, as a worker does whose store says that another copy has it.

use std::{sync::Arc, time::Duration};

use longshore_core::Verdict;
use tokio::time::Instant;

use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement},
    message::{all_to, assert_same, laden, message, number, numbered, to},
    must::Must,
    stage::{SILENCE, Stage, TICK},
};

cases![
    p12_what_is_given_back_for_later_does_not_come_before_and_costs_no_attempt needs Delays,
    p12_what_is_given_back_for_later_holds_nothing_back needs Delays,
    p12_what_is_given_back_for_later_outlives_its_process needs Delays,
];

async fn p12_what_is_given_back_for_later_does_not_come_before_and_costs_no_attempt(
    stage: Arc<Stage>,
) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for attempt in 1..=3 {
        for after in [700, 0, 300] {
            let after = Duration::from_millis(after);
            let delivery = consumer.next().await;
            assert_eq!((delivery.attempt, delivery.suspect), (attempt, false));
            assert_same(&sent, &delivery.envelope);
            let given_back = Instant::now();
            let released = consumer.settle(delivery, Verdict::Release { after }).await;
            released.must("giving back for later");
            let again = consumer.next().await;
            assert!(given_back.elapsed() + TICK >= after, "before {after:?}");
            assert_eq!(again.attempt, attempt, "nothing had started");
            consumer.release(again).await;
        }
        let delivery = consumer.next().await;
        consumer.retry(delivery, Duration::ZERO).await;
    }
    let delivery = consumer.next().await;
    assert_eq!(delivery.attempt, 4);
    consumer.complete(delivery).await;
    consumer.silent(SILENCE).await;
}

async fn p12_what_is_given_back_for_later_holds_nothing_back(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..40))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 20).await;
    let given_back = Instant::now();
    let after = Duration::from_secs(2);
    let batch = consumer.take(20).await.into_iter();
    let batch = batch.map(|delivery| settlement(delivery, Verdict::Release { after }));
    let answers = consumer.settler.settle(batch.collect()).await;
    answers
        .into_iter()
        .for_each(|answer| answer.must("giving back for later"));
    // The others take their places at once.
    for delivery in consumer.drain(20).await {
        assert!(number(&delivery.envelope) >= 20, "early: {delivery:?}");
    }
    for delivery in consumer.drain(20).await {
        assert!(given_back.elapsed() + TICK >= after, "early");
        assert!(number(&delivery.envelope) < 20 && delivery.attempt == 1);
    }
}

async fn p12_what_is_given_back_for_later_outlives_its_process(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("patient"))]).await;
    let process = stage.open().await;
    let subscription = crate::conformance::consumer::subscription(&stage, &topology);
    let mut consumer = Consumer::on(&*process, subscription).await;
    let delivery = consumer.next().await;
    let given_back = Instant::now();
    let after = Duration::from_millis(900);
    let released = consumer.settle(delivery, Verdict::Release { after }).await;
    released.must("giving back for later");
    drop(consumer);
    process.close(Duration::from_secs(2)).await;
    let mut heir = Consumer::of(&stage, &topology).await;
    let delivery = heir.next().await;
    assert!(given_back.elapsed() + TICK >= after, "early");
    assert_eq!((delivery.attempt, delivery.suspect), (1, false));
    heir.complete(delivery).await;
}
