//! Dropping the future of a call leaves no half of anything, and the next call gets its own answer.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{Reason, Topology, Verdict};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement},
    message::{all_to, message, number, numbered, to},
    must::Must,
    stage::{PATIENCE, Stage},
};

cases![
    p1_a_publish_dropped_half_way_is_there_whole_or_not_at_all,
    p3_a_settlement_dropped_half_way_ends_by_itself,
    p3_a_receive_dropped_while_waiting_loses_nothing,
];

/// Polls up to `times`, a moment apart, then drops. Answers what came out, if anything did.
async fn poll_then_drop<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(out) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return Some(out);
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    None
}

async fn p1_a_publish_dropped_half_way_is_there_whole_or_not_at_all(stage: Arc<Stage>) {
    let (topology, missing) = (stage.queue().await, Topology::new(stage.name()));
    let mut confirmed = Vec::new();
    for times in 0..30 {
        let dropped = stage
            .transport
            .publish(vec![to(&topology, message(times.to_string()))]);
        if let Some(answers) = poll_then_drop(times, dropped).await {
            confirmed.push(times);
            assert!(matches!(answers[..], [Ok(_)]), "{answers:?}");
        }
        // Were the answers shifted by one, these two would get each other's.
        let next = vec![
            to(&missing, message("")),
            to(&topology, message((1000 + times).to_string())),
        ];
        let answers = stage.transport.publish(next).await;
        assert!(
            matches!(answers[..], [Err(_), Ok(_)]),
            "{times}: {answers:?}"
        );
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    while let Some(delivery) = consumer.maybe(Duration::from_secs(1)).await {
        *seen.entry(number(&delivery.envelope)).or_default() += 1;
        consumer.complete(delivery).await;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    assert!(
        confirmed.iter().all(|sent| seen.contains_key(sent)),
        "{confirmed:?}: {seen:?}"
    );
    assert!(
        (1000..1030).all(|sent| seen.contains_key(&sent)),
        "{seen:?}"
    );
    assert!(
        !seen.contains_key(&0),
        "a call that was never polled did something"
    );
}

async fn p3_a_settlement_dropped_half_way_ends_by_itself(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..30))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let taken = consumer.take(30).await;
    for (times, delivery) in taken.into_iter().enumerate() {
        let verdict = Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        };
        let dropped = consumer.settler.settle(vec![settlement(delivery, verdict)]);
        poll_then_drop(times, dropped).await;
    }
    stage
        .until_stats(&topology, "29 dead letters", |stats| stats.dead == 29)
        .await;
    drop(consumer);
    let mut heir = Consumer::of(&stage, &topology).await;
    let left = heir
        .maybe(stage.lock() + PATIENCE)
        .await
        .must("the delivery never settled");
    heir.complete(left).await;
    heir.silent(stage.lock() + Duration::from_secs(1)).await;
    assert_eq!(stage.stats(&topology).await.dead, 29);
}

async fn p3_a_receive_dropped_while_waiting_loses_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut seen = Vec::new();
    for at in 0..20 {
        while let Some(delivery) = consumer.maybe(Duration::from_millis(1)).await {
            seen.push(number(&delivery.envelope));
            consumer.complete(delivery).await;
        }
        stage.publish(all_to(&topology, numbered(at..at + 1))).await;
    }
    while seen.len() < 20 {
        let delivery = consumer.next().await;
        seen.push(number(&delivery.envelope));
        consumer.complete(delivery).await;
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..20), "every message once");
}
