//! P1, P2: many publishers, many consumers, every message once.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{Delivery, Settlement};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, number, numbered},
    must::Must,
    stage::{GRACE, PATIENCE, Stage, accepted},
};

cases![
    p1_ten_thousand_messages_of_32_publishers_are_handled_once_each,
    p2_competing_consumers_never_share_a_delivery,
    p2_a_waiting_consumer_is_woken_by_what_is_published,
    p2_a_full_consumer_is_woken_by_what_is_settled,
    p1_consumers_of_many_queues_run_side_by_side,
    p9_a_slow_consumer_receives_many_messages,
];

async fn p1_ten_thousand_messages_of_32_publishers_are_handled_once_each(stage: Arc<Stage>) {
    const EACH: usize = 320;
    let topology = stage.queue().await;
    let mut publishers = JoinSet::new();
    for task in 0..32 {
        let (transport, topology) = (stage.transport.clone(), topology.clone());
        publishers.spawn(async move {
            for from in (0..EACH).step_by(20) {
                let first = task * EACH + from;
                accepted(&*transport, all_to(&topology, numbered(first..first + 20))).await;
            }
        });
    }
    let consumers = compete(&stage, &topology, 4, 32 * EACH).await;
    while let Some(ended) = publishers.join_next().await {
        ended.must("a publisher");
    }
    let seen = consumers.seen().await;
    assert_eq!(seen.len(), 32 * EACH, "messages handled");
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "handled more than once: {twice:?}");
}

async fn p2_competing_consumers_never_share_a_delivery(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let consumers = compete(&stage, &topology, 6, 600).await;
    stage.publish(all_to(&topology, numbered(0..600))).await;
    let seen = consumers.seen().await;
    assert!(
        seen.len() == 600 && seen.values().all(|times| *times == 1),
        "{seen:?}"
    );
}

/// Runs until the next delivery in a task of its own, so that only a wake-up can end it.
fn waiting(mut consumer: Consumer) -> JoinHandle<(Consumer, Delivery, Instant)> {
    tokio::spawn(async move {
        let mut into = Vec::new();
        poll_fn(|cx| consumer.source.poll_receive(cx, 1, &mut into))
            .await
            .must("receiving");
        let delivery = into.pop().must("a delivery");
        (consumer, delivery, Instant::now())
    })
}

async fn p2_a_waiting_consumer_is_woken_by_what_is_published(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for round in 0..5 {
        let woken = waiting(consumer);
        tokio::time::sleep(Duration::from_millis(150 * round)).await;
        let published = Instant::now();
        stage.publish(all_to(&topology, numbered(0..1))).await;
        let woken = tokio::time::timeout(PATIENCE, woken).await;
        let (back, delivery, at) = woken.must("a wake-up").must("a consumer");
        let took = at.saturating_duration_since(published);
        assert!(
            took < Duration::from_millis(500) + GRACE,
            "received after {took:?}"
        );
        consumer = back;
        consumer.complete(delivery).await;
    }
}

async fn p2_a_full_consumer_is_woken_by_what_is_settled(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..6))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 1).await;
    let mut delivery = consumer.next().await;
    let settler = consumer.settler.clone();
    for _ in 0..5 {
        let woken = waiting(consumer);
        tokio::time::sleep(Duration::from_millis(150)).await;
        let settled = Instant::now();
        let done = Settlement::complete(delivery.receipt, delivery.attempt);
        let mut answers = settler.settle(vec![done]).await;
        answers.pop().must("an answer").must("completing");
        let woken = tokio::time::timeout(PATIENCE, woken).await;
        let at;
        (consumer, delivery, at) = woken.must("a wake-up").must("a consumer");
        let took = at.saturating_duration_since(settled);
        assert!(
            took < Duration::from_millis(500) + GRACE,
            "received after {took:?}"
        );
    }
    consumer.complete(delivery).await;
}

async fn p1_consumers_of_many_queues_run_side_by_side(stage: Arc<Stage>) {
    let mut queues = Vec::new();
    for _ in 0..5 {
        let topology = stage.queue().await;
        let consumers = compete(&stage, &topology, 2, 100).await;
        queues.push((topology, consumers));
    }
    let batches = queues
        .iter()
        .flat_map(|(topology, _)| all_to(topology, numbered(0..100)));
    stage.publish(batches.collect()).await;
    for (topology, consumers) in queues {
        let seen = consumers.seen().await;
        assert!(
            seen.len() == 100 && seen.values().all(|times| *times == 1),
            "{topology:?}: {seen:?}"
        );
    }
}

async fn p9_a_slow_consumer_receives_many_messages(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..200))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 10).await;
    let mut seen = BTreeMap::new();
    while seen.len() < 200 {
        let batch = consumer.take(5).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for delivery in &batch {
            *seen.entry(number(&delivery.envelope)).or_insert(0) += 1;
        }
        consumer.complete_all(batch).await;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

/// Consumers in tasks of their own, on two transports, until a number of messages is done.
struct Competitors {
    tasks: JoinSet<Vec<usize>>,
}

impl Competitors {
    /// How often each number was handled.
    async fn seen(mut self) -> BTreeMap<usize, usize> {
        let mut seen = BTreeMap::new();
        while let Some(ended) = self.tasks.join_next().await {
            for number in ended.must("a consumer") {
                *seen.entry(number).or_insert(0) += 1;
            }
        }
        seen
    }
}

async fn compete(
    stage: &Stage,
    topology: &longshore_core::Topology,
    count: usize,
    messages: usize,
) -> Competitors {
    let other = stage.open().await;
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(messages));
    let mut tasks = JoinSet::new();
    for at in 0..count {
        let transport = if at % 2 == 0 {
            &stage.transport
        } else {
            &other
        };
        let mut consumer = Consumer::on(&**transport, subscription(stage, topology)).await;
        let left = left.clone();
        tasks.spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            let mut seen = Vec::new();
            let mut idle = Instant::now();
            // A little longer than needed, so that what comes twice is seen.
            while left.load(SeqCst) > 0 || idle.elapsed() < Duration::from_millis(500) {
                assert!(
                    idle.elapsed() < PATIENCE,
                    "{} messages never came",
                    left.load(SeqCst)
                );
                let Some(batch) = consumer.batch(64, Duration::from_millis(200)).await else {
                    continue;
                };
                let batch: Vec<Delivery> = batch.must("receiving");
                idle = Instant::now();
                seen.extend(batch.iter().map(|d| number(&d.envelope)));
                let done = batch
                    .iter()
                    .map(|d| Settlement::complete(d.receipt, d.attempt));
                for answer in consumer.settler.settle(done.collect()).await {
                    answer.must("completing");
                }
                let _ = left.fetch_update(SeqCst, SeqCst, |left| {
                    Some(left.saturating_sub(batch.len()))
                });
            }
            seen
        });
    }
    Competitors { tasks }
}
