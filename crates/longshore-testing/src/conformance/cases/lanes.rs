//! Lanes: physical queues of their own inside one queue.

use std::{sync::Arc, time::Duration};

use longshore_core::{Destination, Envelope, Name, Outgoing, Part, Subscription, Topology};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{message, number, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p10_each_lane_delivers_what_was_published_to_it needs Lanes,
    p10_each_lane_has_a_prefetch_of_its_own needs Lanes,
    p10_a_retry_stays_in_its_lane needs Lanes,
    p10_a_lane_that_was_never_declared_is_refused needs Lanes,
];

async fn with_lanes(stage: &Stage) -> Topology {
    let mut topology = Topology::new(stage.name());
    for lane in ["high", "low"] {
        topology.lanes.push(Name::new(lane).must("a name"));
    }
    stage.declare(&topology).await;
    topology
}

fn to_lane(topology: &Topology, lane: u8, mut envelope: Envelope) -> Outgoing {
    envelope.priority = topology.lane(lane).map(|name| name.as_str().into());
    let mut outgoing = to(topology, envelope);
    outgoing.to = Destination::Queue(topology.queue.clone(), Part::Lane(lane));
    outgoing
}

async fn consume(stage: &Stage, topology: &Topology, lane: u8, prefetch: u16) -> Consumer {
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
