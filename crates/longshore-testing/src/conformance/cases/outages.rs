//! P14: nothing transient ends a consumer, and nothing confirmed is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use longshore_core::{
    ConnectOptions, Envelope, ErrorKind, Reason, Text, Topology, Transport, Verdict,
};
use tokio::time::Instant;

use super::dead_letters::{letters, set_aside};
use crate::conformance::{
    case::cases,
    consumer::{Consumer, assert_stale, settlement, subscription},
    message::{all_to, assert_same, laden, later, message, numbered, to},
    must::Must,
    stage::{GRACE, PATIENCE, Stage, options},
};

cases![
    p2_a_lost_lock_is_reported_once_and_its_settlement_is_stale needs Cut,
    p14_a_cut_connection_mends_itself needs Cut,
    p14_cuts_in_the_middle_of_traffic_lose_nothing needs Cut,
    p14_a_restart_keeps_every_message_and_its_attempts needs Outage,
    p14_a_source_goes_on_after_a_restart needs Outage,
    p14_publishing_during_an_outage_answers_in_time needs Outage,
    p8_delays_survive_a_restart needs Outage,
    p14_a_frozen_broker_is_noticed_and_forgiven needs Freeze,
];

fn hurried() -> ConnectOptions {
    let mut options = options();
    options.connect_timeout = Duration::from_secs(2);
    options.confirm_timeout = Duration::from_secs(2);
    options.heartbeat = Duration::from_secs(1);
    options
}

/// Publishes with the same id until it is confirmed.
async fn publish_through(transport: &dyn Transport, topology: &Topology, envelope: Envelope) {
    let from = Instant::now();
    loop {
        let mut answers = transport
            .publish(vec![to(topology, envelope.clone())])
            .await;
        let Err(error) = answers.pop().must("an answer") else {
            return;
        };
        assert!(
            error.is_transient(),
            "{:?} while the connection mends: {error}",
            error.kind()
        );
        assert!(
            from.elapsed() < PATIENCE,
            "no publish succeeds any more: {error}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn p2_a_lost_lock_is_reported_once_and_its_settlement_is_stale(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..5))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let held = consumer.take(5).await;
    stage.faults().cut_now().await;
    let mut lost = Vec::new();
    let from = Instant::now();
    let mut again = Vec::new();
    // A broker whose locks outlive a connection loses none; then they all must still hold.
    while again.len() + lost.len() < 5 && from.elapsed() < stage.lock() + Duration::from_secs(3) {
        lost.extend(consumer.lost().await);
        again.extend(consumer.maybe(Duration::from_millis(200)).await);
        lost.extend(consumer.lost().await);
    }
    let unique: BTreeSet<_> = lost.iter().copied().collect();
    assert_eq!(unique.len(), lost.len(), "reported once each: {lost:?}");
    assert!(again.iter().all(|d| d.attempt == 2), "{again:?}");
    for delivery in held {
        let receipt = delivery.receipt;
        let verdict = Verdict::Release {
            after: Duration::ZERO,
        };
        let mut answers = consumer
            .settler
            .settle(vec![settlement(delivery, verdict)])
            .await;
        let answer = answers.pop().must("an answer");
        if unique.contains(&receipt) {
            assert_stale(answer);
        } else {
            answer.must("a lock that was not reported as lost");
        }
    }
    while again.len() < 5 {
        again.push(consumer.next().await);
    }
    consumer.complete_all(again).await;
    consumer
        .silent(stage.lock() + Duration::from_millis(500))
        .await;
}

async fn p14_a_cut_connection_mends_itself(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for round in 0..4 {
        publish_through(&*stage.transport, &topology, message(round.to_string())).await;
        let delivery = consumer.next().await;
        consumer.complete(delivery).await;
        stage.faults().cut_now().await;
        let cut = Instant::now();
        publish_through(&*stage.transport, &topology, message("after")).await;
        let delivery = consumer.next().await;
        let took = cut.elapsed();
        assert!(
            took <= Duration::from_secs(2) + GRACE,
            "back after {took:?}"
        );
        // Its connection is new, so its lock is.
        consumer.complete(delivery).await;
        while let Some(twice) = consumer.maybe(Duration::from_millis(100)).await {
            consumer.complete(twice).await;
        }
    }
    assert!(
        consumer.source.trouble().is_none(),
        "{:?}",
        consumer.source.trouble()
    );
}

async fn p14_cuts_in_the_middle_of_traffic_lose_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let publisher = stage.open().await;
    let (target, sent) = (topology.clone(), 1000);
    let publishing = tokio::spawn(async move {
        for envelope in numbered(0..sent) {
            publish_through(&*publisher, &target, envelope).await;
        }
    });
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut done: BTreeMap<Text, u32> = BTreeMap::new();
    let mut last_cut = Instant::now();
    let mut cuts = 0;
    while done.len() < sent {
        let delivery = consumer.next().await;
        let id = delivery.envelope.id.clone();
        let mut answers = consumer
            .settler
            .settle(vec![settlement(delivery, Verdict::Complete)])
            .await;
        match answers.pop().must("an answer") {
            Ok(()) => *done.entry(id).or_default() += 1,
            Err(refused) => {
                let kind = refused.error.kind();
                let lost = matches!(
                    kind,
                    ErrorKind::Stale | ErrorKind::Unknown | ErrorKind::Unavailable
                );
                assert!(lost, "{kind:?}: {}", refused.error);
            }
        }
        if cuts < 6 && last_cut.elapsed() > Duration::from_millis(250) {
            stage.faults().cut_now().await;
            (last_cut, cuts) = (Instant::now(), cuts + 1);
        }
    }
    publishing.await.must("the publisher");
    assert_eq!(done.len(), sent);
}

async fn p14_a_restart_keeps_every_message_and_its_attempts(stage: Arc<Stage>) {
    let topology = stage.settled_queue().await;
    let (dead, tried, held) = (laden(), message("tried"), message("held"));
    let mut consumer = Consumer::of(&stage, &topology).await;
    stage.publish(vec![to(&topology, dead.clone())]).await;
    set_aside(&mut consumer, Reason::Permanent, "before the restart").await;
    stage.publish(vec![to(&topology, tried.clone())]).await;
    for _ in 0..3 {
        let delivery = consumer.next().await;
        consumer.retry(delivery, Duration::ZERO).await;
    }
    let fourth = consumer.next().await;
    assert_eq!(fourth.attempt, 4);
    consumer.retry(fourth, Duration::from_secs(1)).await;
    stage.publish(vec![to(&topology, held.clone())]).await;
    let in_flight = consumer.next().await;
    drop(consumer);
    stage.publish(all_to(&topology, numbered(0..20))).await;
    stage.faults().down().await;
    stage.faults().up().await;
    let process = stage.open().await;
    let mut heir = Consumer::on(&*process, subscription(&stage, &topology)).await;
    let mut all: BTreeMap<Text, u32> = BTreeMap::new();
    while all.len() < 22 {
        let delivery = heir.next().await;
        all.insert(delivery.envelope.id.clone(), delivery.attempt);
        heir.complete(delivery).await;
    }
    let tries = all.get(&tried.id).copied().must("the retried one");
    assert!((5..=6).contains(&tries), "attempts were reset: {tries}");
    let tries = all
        .get(&in_flight.envelope.id)
        .copied()
        .must("the one in flight");
    assert!(
        (2..=3).contains(&tries),
        "the one in flight comes back as attempt {tries}"
    );
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_same(&dead, &letter.envelope);
    assert_eq!(
        (letter.attempts, &letter.detail[..]),
        (1, "before the restart")
    );
}

async fn p14_a_source_goes_on_after_a_restart(stage: Arc<Stage>) {
    let topology = stage.settled_queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    stage.publish(all_to(&topology, numbered(0..5))).await;
    let held = consumer.take(5).await;
    stage.faults().down().await;
    let down = Instant::now();
    while consumer.source.trouble().is_none() {
        assert!(
            down.elapsed() < Duration::from_secs(12),
            "the outage is not shown as trouble"
        );
        consumer.silent(Duration::from_millis(100)).await;
    }
    stage.faults().up().await;
    let up = Instant::now();
    publish_through(&*stage.transport, &topology, message("after")).await;
    let after = consumer.until("after").await;
    let took = up.elapsed();
    assert!(
        took <= Duration::from_secs(10),
        "back {took:?} after the broker"
    );
    consumer.complete(after).await;
    // Locks may have outlived the outage; what did not comes again.
    for delivery in held {
        let answer = consumer.settle(delivery, Verdict::Complete).await;
        if answer.is_err() {
            assert_stale(answer);
        }
    }
    while let Some(again) = consumer.maybe(stage.lock() + Duration::from_secs(2)).await {
        consumer.complete(again).await;
    }
    stage
        .until_stats(&topology, "an empty queue", |stats| {
            stats.ready == 0 && stats.in_flight.unwrap_or(0) == 0
        })
        .await;
    let trouble = consumer.source.trouble();
    assert!(trouble.is_none(), "{trouble:?}");
}

async fn p14_publishing_during_an_outage_answers_in_time(stage: Arc<Stage>) {
    let topology = stage.settled_queue().await;
    let publisher = stage.open_with(hurried()).await;
    publish_through(&*publisher, &topology, message("before")).await;
    stage.faults().down().await;
    for _ in 0..3 {
        let asked = Instant::now();
        let answers = publisher.publish(all_to(&topology, numbered(0..3))).await;
        let took = asked.elapsed();
        assert!(
            took <= Duration::from_secs(5) + GRACE,
            "answered after {took:?}"
        );
        assert_eq!(answers.len(), 3);
        for answer in answers {
            let error = answer.err().must("nobody confirmed this");
            let honest = matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable);
            assert!(honest, "{:?}: {error}", error.kind());
        }
    }
    stage.faults().up().await;
    let up = Instant::now();
    publish_through(&*publisher, &topology, message("after")).await;
    assert!(
        up.elapsed() <= Duration::from_secs(10),
        "back after {:?}",
        up.elapsed()
    );
}

async fn p8_delays_survive_a_restart(stage: Arc<Stage>) {
    let topology = stage.settled_queue().await;
    let asked = Instant::now();
    let batch = (0..60).map(|at| {
        later(
            &topology,
            message(at.to_string()),
            Duration::from_millis(100 * at),
        )
    });
    stage.publish(batch.collect()).await;
    stage.faults().down().await;
    stage.faults().up().await;
    let process = stage.open().await;
    let mut heir = Consumer::on(&*process, subscription(&stage, &topology)).await;
    for delivery in heir.drain(60).await {
        let number = crate::conformance::message::number(&delivery.envelope) as u64;
        let due = Duration::from_millis(100 * number);
        assert!(
            asked.elapsed() + Duration::from_millis(1) >= due,
            "{number} came early"
        );
    }
}

async fn p14_a_frozen_broker_is_noticed_and_forgiven(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let client = stage.open_with(hurried()).await;
    let mut consumer = Consumer::on(&*client, subscription(&stage, &topology)).await;
    publish_through(&*client, &topology, message("before")).await;
    let delivery = consumer.next().await;
    consumer.complete(delivery).await;
    stage.faults().freeze_now().await;
    let asked = Instant::now();
    let mut answers = client.publish(vec![to(&topology, message("frozen"))]).await;
    let took = asked.elapsed();
    let answer = answers.pop().must("an answer");
    while consumer.source.trouble().is_none() && asked.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let trouble = consumer.source.trouble();
    stage.faults().thaw().await;
    let error = answer.err().must("a frozen broker confirmed");
    assert!(
        matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable),
        "{error}"
    );
    assert!(
        took <= Duration::from_secs(5) + GRACE,
        "answered after {took:?}"
    );
    assert!(trouble.is_some(), "a silent broker is not shown as trouble");
    publish_through(&*client, &topology, message("after")).await;
    let after = consumer.until("after").await;
    consumer.complete(after).await;
}
