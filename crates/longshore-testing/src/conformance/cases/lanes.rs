//! Lanes: physical queues of their own inside one queue.

use std::{sync::Arc, time::Duration};

use longshore_core::{Delivery, Name, Part, Reason, Subscription, Topology, Verdict};
use tokio::time::Instant;

use super::dead_letters::{letters, set_aside};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{assert_same, laden, message, number, to_lane, to_topic},
    must::Must,
    stage::{GRACE, PATIENCE, SILENCE, Stage, TICK},
};

cases![
    p10_each_lane_delivers_what_was_published_to_it needs Lanes,
    p10_each_lane_has_a_prefetch_of_its_own needs Lanes,
    p10_a_retry_stays_in_its_lane needs Lanes,
    p10_a_high_message_does_not_wait_for_the_low_ones_before_it needs Lanes,
    p10_what_is_given_back_for_later_returns_to_its_lane needs Lanes & Delays,
    p10_a_delayed_message_goes_to_its_lane needs Lanes & Delays,
    p10_deaths_in_a_lane_are_counted_and_the_message_stays_in_it needs Lanes,
    p10_dead_letters_of_all_lanes_are_one_list_and_each_returns_to_its_lane needs Lanes,
    p10_a_topic_message_goes_to_its_lane_or_where_there_is_none_to_the_normal_one needs Lanes & Topics,
    p10_figures_sum_up_over_the_lanes needs Lanes,
    p10_a_lane_that_was_never_declared_is_refused needs Lanes,
];

pub(super) async fn with_lanes(stage: &Stage) -> Topology {
    let mut topology = Topology::new(stage.name());
    for lane in ["high", "low"] {
        topology.lanes.push(Name::new(lane).must("a name"));
    }
    stage.declare(&topology).await;
    topology
}

pub(super) async fn consume(
    stage: &Stage,
    topology: &Topology,
    lane: u8,
    prefetch: u16,
) -> Consumer {
    let lane = Subscription {
        part: Part::Lane(lane),
        prefetch,
        ..subscription(stage, topology)
    };
    Consumer::on(&*stage.transport, lane).await
}

async fn p10_each_lane_delivers_what_was_published_to_it(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let batch = (0..30).map(|at| to_lane(&topology, (at % 3) as u8, message(at.to_string())));
    stage.publish(batch.collect()).await;
    for lane in [1, 0, 2] {
        let mut consumer = consume(&stage, &topology, lane, 64).await;
        for delivery in consumer.drain(10).await {
            assert_eq!(number(&delivery.envelope) % 3, usize::from(lane));
            assert_eq!(delivery.part, Part::Lane(lane));
            let named = topology.lane(lane).map(Name::as_str);
            assert_eq!(delivery.envelope.priority.as_deref(), named);
        }
        consumer.silent(Duration::from_millis(200)).await;
    }
}

async fn p10_each_lane_has_a_prefetch_of_its_own(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let batch = (0..30).map(|at| to_lane(&topology, (at % 3) as u8, message(at.to_string())));
    stage.publish(batch.collect()).await;
    let mut low = consume(&stage, &topology, 2, 3).await;
    let mut high = consume(&stage, &topology, 1, 4).await;
    let held = low.take(3).await;
    low.silent(Duration::from_millis(200)).await;
    let first = high.take(4).await;
    high.silent(Duration::from_millis(200)).await;
    high.complete_all(first).await;
    high.drain(6).await;
    low.silent(Duration::from_millis(200)).await;
    low.complete_all(held).await;
    low.drain(7).await;
}

async fn p10_a_retry_stays_in_its_lane(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    stage
        .publish(vec![to_lane(&topology, 1, message("urgent"))])
        .await;
    let mut normal = consume(&stage, &topology, 0, 64).await;
    let mut high = consume(&stage, &topology, 1, 64).await;
    for (attempt, after) in [(1, 0), (2, 150), (3, 0)] {
        let delivery = high.next().await;
        assert_eq!(delivery.attempt, attempt);
        high.retry(delivery, Duration::from_millis(after)).await;
    }
    let delivery = high.next().await;
    high.release(delivery).await;
    let delivery = high.next().await;
    assert_eq!(delivery.attempt, 4);
    high.complete(delivery).await;
    normal.silent(SILENCE).await;
}

async fn p10_a_high_message_does_not_wait_for_the_low_ones_before_it(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let low = (0..2000).map(|at| to_lane(&topology, 2, message(at.to_string())));
    stage.publish(low.collect()).await;
    let mut low = consume(&stage, &topology, 2, 64).await;
    let mut high = consume(&stage, &topology, 1, 64).await;
    // A full buffer of low ones, all unsettled.
    let held = low.take(64).await;
    for _ in 0..5 {
        let asked = Instant::now();
        stage
            .publish(vec![to_lane(&topology, 1, message("urgent"))])
            .await;
        let urgent = high.next().await;
        let took = asked.elapsed();
        assert!(
            took < GRACE + GRACE,
            "{took:?} behind messages of another lane"
        );
        high.complete(urgent).await;
    }
    low.complete_all(held).await;
}

async fn p10_what_is_given_back_for_later_returns_to_its_lane(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let sent = message("urgent");
    stage
        .publish(vec![to_lane(&topology, 1, sent.clone())])
        .await;
    let mut normal = consume(&stage, &topology, 0, 64).await;
    let mut high = consume(&stage, &topology, 1, 64).await;
    let after = Duration::from_millis(500);
    for _ in 0..2 {
        let delivery = high.next().await;
        let given_back = Instant::now();
        let released = high.settle(delivery, Verdict::Release { after }).await;
        released.must("giving back for later");
        let delivery = high.next().await;
        assert!(given_back.elapsed() + TICK >= after, "early");
        assert_eq!(delivery.attempt, 1);
        assert_eq!(delivery.envelope.id, sent.id);
        high.release(delivery).await;
    }
    let delivery = high.next().await;
    high.complete(delivery).await;
    normal.silent(SILENCE).await;
}

async fn p10_a_delayed_message_goes_to_its_lane(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let delay = Duration::from_millis(400);
    let asked = Instant::now();
    let batch = (0..3).map(|lane| {
        let mut outgoing = to_lane(&topology, lane, message(lane.to_string()));
        outgoing.delay = delay;
        outgoing
    });
    stage.publish(batch.collect()).await;
    for lane in 0..3 {
        let mut consumer = consume(&stage, &topology, lane, 64).await;
        let delivery = consumer.next().await;
        assert!(asked.elapsed() + TICK >= delay, "early");
        assert_eq!(number(&delivery.envelope), usize::from(lane));
        let named = topology.lane(lane).map(Name::as_str);
        assert_eq!(delivery.envelope.priority.as_deref(), named);
        consumer.complete(delivery).await;
        consumer.silent(Duration::from_millis(200)).await;
    }
}

/// A broker may keep the suspects of all lanes in one place: any source of the worker may give them out.
async fn p10_deaths_in_a_lane_are_counted_and_the_message_stays_in_it(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let sent = to_lane(&topology, 1, message("killer"));
    stage.publish(vec![sent.clone()]).await;
    for attempt in 1..=4 {
        let mut worker = Vec::new();
        for lane in 0..3 {
            worker.push(consume(&stage, &topology, lane, 64).await);
        }
        let (lane, delivery) = next_of(&mut worker).await;
        assert_eq!(delivery.attempt, attempt);
        assert_same(&sent.envelope, &delivery.envelope);
        worker[lane].start(&delivery).await;
        if attempt == 4 {
            let verdict = Verdict::DeadLetter {
                reason: Reason::Crashed,
                detail: String::new(),
            };
            let settled = worker[lane].settle(delivery, verdict).await;
            settled.must("dead-lettering");
        }
    }
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_eq!(letter.attempts, 4);
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    let mut high = consume(&stage, &topology, 1, 64).await;
    let back = high.next().await;
    assert_eq!((back.attempt, back.suspect), (1, false));
    high.complete(back).await;
}

/// The next delivery of any of these, and whose it was.
async fn next_of(worker: &mut [Consumer]) -> (usize, Delivery) {
    let from = Instant::now();
    loop {
        for (lane, consumer) in worker.iter_mut().enumerate() {
            if let Some(delivery) = consumer.maybe(Duration::from_millis(50)).await {
                return (lane, delivery);
            }
        }
        assert!(from.elapsed() < PATIENCE, "nothing comes from any lane");
    }
}

async fn p10_dead_letters_of_all_lanes_are_one_list_and_each_returns_to_its_lane(
    stage: Arc<Stage>,
) {
    let topology = with_lanes(&stage).await;
    let mut sent = Vec::new();
    for lane in 0..3 {
        let mut outgoing = to_lane(&topology, lane, laden());
        outgoing.envelope.key = None;
        sent.push(outgoing.envelope.clone());
        stage.publish(vec![outgoing]).await;
        let mut consumer = consume(&stage, &topology, lane, 64).await;
        set_aside(&mut consumer, Reason::Permanent, "set aside").await;
    }
    let list = letters(&stage, &topology, 3).await;
    let admin = stage.transport.admin();
    let ids: Vec<_> = list.iter().map(|letter| letter.id.clone()).collect();
    for answer in admin.redrive(&topology.queue, &ids).await {
        answer.must("redriving");
    }
    letters(&stage, &topology, 0).await;
    for (lane, sent) in (0..3).zip(&sent) {
        let mut consumer = consume(&stage, &topology, lane, 64).await;
        let back = consumer.next().await;
        assert_same(sent, &back.envelope);
        assert_eq!(back.attempt, 1);
        consumer.complete(back).await;
        consumer.silent(Duration::from_millis(200)).await;
    }
}

async fn p10_a_topic_message_goes_to_its_lane_or_where_there_is_none_to_the_normal_one(
    stage: Arc<Stage>,
) {
    let topic = stage.name();
    let lanes_of = [&["high", "low"][..], &["low"], &[]];
    let mut queues = Vec::new();
    for lanes in lanes_of {
        let mut topology = Topology::new(stage.name());
        topology.topics.push(topic.clone());
        for &lane in lanes {
            topology.lanes.push(Name::new(lane).must("a name"));
        }
        stage.declare(&topology).await;
        queues.push(topology);
    }
    for (body, priority) in [("0", None), ("1", Some("high")), ("2", Some("low"))] {
        let mut envelope = message(body);
        envelope.priority = priority.map(Into::into);
        stage.publish(vec![to_topic(&topic, envelope)]).await;
    }
    // By queue and lane, the bodies.
    let wanted: [&[&[usize]]; 3] = [&[&[0], &[1], &[2]], &[&[0, 1], &[2]], &[&[0, 1, 2]]];
    for (topology, wanted) in queues.iter().zip(wanted) {
        for (lane, wanted) in (0..).zip(wanted) {
            let mut consumer = consume(&stage, topology, lane, 64).await;
            // A retry goes back to where it was, whatever the name of its priority says.
            for delivery in consumer.take(wanted.len()).await {
                assert_eq!(delivery.attempt, 1);
                consumer.retry(delivery, Duration::ZERO).await;
            }
            let mut numbers = Vec::new();
            for delivery in consumer.drain(wanted.len()).await {
                assert_eq!((delivery.attempt, delivery.part), (2, Part::Lane(lane)));
                numbers.push(number(&delivery.envelope));
            }
            numbers.sort_unstable();
            assert_eq!(numbers, *wanted, "lane {lane} of {:?}", topology.lanes);
            consumer.silent(Duration::from_millis(200)).await;
        }
    }
}

async fn p10_figures_sum_up_over_the_lanes(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let batch = (0..12).map(|at| to_lane(&topology, (at % 3) as u8, message(at.to_string())));
    stage.publish(batch.collect()).await;
    if stage.transport.capabilities().longest_delay.is_some() {
        let mut later = to_lane(&topology, 1, message("later"));
        later.delay = Duration::from_secs(600);
        stage.publish(vec![later]).await;
    } else {
        stage
            .publish(vec![to_lane(&topology, 1, message("12"))])
            .await;
    }
    let delayed = u64::from(stage.transport.capabilities().longest_delay.is_some());
    stage
        .until_stats(&topology, "twelve ready", |s| {
            s.ready == 13 - delayed && s.delayed.unwrap_or(delayed) == delayed
        })
        .await;
    let mut high = consume(&stage, &topology, 1, 2).await;
    let mut low = consume(&stage, &topology, 2, 3).await;
    let (first, second) = (high.take(2).await, low.take(3).await);
    stage
        .until_stats(&topology, "seven ready, five in flight", |s| {
            s.ready == 8 - delayed && s.in_flight.unwrap_or(5) == 5 && s.consumers.unwrap_or(2) == 2
        })
        .await;
    high.complete_all(first).await;
    low.complete_all(second).await;
}

async fn p10_a_lane_that_was_never_declared_is_refused(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let missing = Subscription {
        part: Part::Lane(3),
        ..subscription(&stage, &topology)
    };
    assert!(
        stage.transport.subscribe(missing).await.is_err(),
        "subscribed to a missing lane"
    );
}
