//! P12: where the same id is the same message, and where it is another.

use std::{sync::Arc, time::Duration};

use longshore_core::{Standing, Topology, Verdict};

use super::{
    dedup::{WINDOW, accepted, done, duplicate, marked, once},
    lanes::{consume, with_lanes},
};
use crate::conformance::{
    case::cases,
    consumer::Consumer,
    member::Owner,
    message::{keys_in, message, partition, to, to_lane, to_session},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p12_the_same_id_elsewhere_is_another needs DedupAtPublish,
    p12_the_lanes_of_a_queue_share_its_ids needs DedupAtPublish & Lanes,
    p12_ids_of_sessions_are_told_apart_by_key needs DedupAtPublish & Partitions,
];

async fn p12_the_same_id_elsewhere_is_another(stage: Arc<Stage>) {
    let one = stage.deduplicating(WINDOW).await;
    let other = stage.deduplicating(WINDOW).await;
    let sent = message("1");
    let mut keyed = sent.clone();
    keyed.key = Some("key".into());
    let mut rekeyed = sent.clone();
    rekeyed.key = Some("another key".into());
    for topology in [&one, &other] {
        for envelope in [&sent, &keyed, &rekeyed] {
            let outgoing = once(to(topology, envelope.clone()), WINDOW);
            accepted(&stage, &outgoing).await;
            duplicate(&stage, &outgoing).await;
        }
        let mut consumer = Consumer::of(&stage, topology).await;
        let came = consumer.drain(3).await;
        assert!(came.iter().all(|d| d.standing == Standing::Held));
        consumer.silent(Duration::from_millis(200)).await;
    }
}

async fn p12_the_lanes_of_a_queue_share_its_ids(stage: Arc<Stage>) {
    let topology = with_lanes(&stage).await;
    let sent = message("1");
    accepted(&stage, &once(to_lane(&topology, 1, sent.clone()), WINDOW)).await;
    for lane in 0..3 {
        let again = once(to_lane(&topology, lane, sent.clone()), WINDOW);
        duplicate(&stage, &again).await;
    }
    let mut high = consume(&stage, &topology, 1, 64).await;
    let delivery = high.next().await;
    assert_eq!(delivery.standing, Standing::Held);
    high.complete(delivery).await;
    stage
        .until_stats(&topology, "an empty queue", |s| s.ready == 0)
        .await;
}

async fn p12_ids_of_sessions_are_told_apart_by_key(stage: Arc<Stage>) {
    let mut topology = Topology::new(stage.name());
    topology.partitions = 4;
    topology.dedup_window = Some(WINDOW);
    stage.declare(&topology).await;
    let sent = message("1");
    let keys: Vec<_> = keys_in(&topology, 1)
        .take(2)
        .chain(keys_in(&topology, 3).take(1))
        .collect();
    for key in &keys {
        let outgoing = once(to_session(&topology, key, sent.clone()), WINDOW);
        accepted(&stage, &outgoing).await;
        duplicate(&stage, &outgoing).await;
    }
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let held = owner.consumer.take(2).await;
    assert!(held.iter().all(|d| d.standing == Standing::Held));
    assert!(held.iter().all(|d| d.part == partition(&topology, 1)));
    drop(owner);
    // Neither a death nor a hand-over frees an id.
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let held = owner.consumer.take(2).await;
    assert!(held.iter().all(|d| d.standing == Standing::Held));
    owner.hand_over(held).await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    for key in &keys[..2] {
        duplicate(
            &stage,
            &once(to_session(&topology, key, sent.clone()), WINDOW),
        )
        .await;
        let delivery = owner.consumer.next().await;
        assert_eq!(delivery.standing, Standing::Held);
        if stage.transport.capabilities().atomic_settle {
            let completed = marked(delivery, Verdict::Complete, done(WINDOW));
            owner
                .consumer
                .settle_with(completed)
                .await
                .must("completing");
        } else {
            owner.consumer.complete(delivery).await;
        }
        duplicate(
            &stage,
            &once(to_session(&topology, key, sent.clone()), WINDOW),
        )
        .await;
    }
    owner.consumer.silent(SILENCE).await;
}
