//! What belongs to a queue with sessions, and another number of partitions.

use std::{sync::Arc, time::Duration};

use longshore_core::{Claim, Declare, Destination, ErrorKind, Ids, Name, RandomIds, Topology};
use longshore_testing::brokers::{Broker, BrokerKind};

use super::worker::Orders;
use crate::rig::{body, connect, message, unique};

fn with(topology: &Topology, partitions: u16) -> Topology {
    let mut other = topology.clone();
    other.partitions = partitions;
    other
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_while_the_first_is_in_use() {
    let orders = Orders::new(16).await;
    let other = with(&orders.topology, 32);
    orders.publish(5, [1]).await;
    let transport = connect(&orders.url).await;
    for mode in [Declare::Create, Declare::Verify] {
        let refused = transport
            .declare(&other, mode)
            .await
            .expect_err("not empty");
        assert_eq!(refused.kind(), ErrorKind::TopologyDiffers, "{refused}");
        let text = refused.to_string();
        for part in ["32 partitions", "16", "empty them", &orders.topology.queue] {
            assert!(text.contains(part), "{text}");
        }
    }
    let joined = transport
        .join(
            &Arc::new(other.clone()),
            Declare::Create,
            longshore_core::defaults::LOCK,
        )
        .await;
    let refused = joined.err().map(|e| e.kind());
    assert_eq!(refused, Some(ErrorKind::TopologyDiffers));
    // Refused before anything was made.
    let published = transport
        .publish(vec![longshore_core::Outgoing {
            to: Destination::Queue(
                other.queue.clone(),
                longshore_core::Part::Partition { index: 0, of: 32 },
            ),
            envelope: message("x"),
            delay: Duration::ZERO,
            dedup_window: None,
        }])
        .await;
    let refused = published.into_iter().next().expect("an answer");
    assert_eq!(refused.expect_err("no such").kind(), ErrorKind::NoSuchQueue);
    // Held is not empty either.
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(5).await;
    let held = taker.one().await;
    let refused = transport.declare(&other, Declare::Create).await;
    assert_eq!(
        refused.err().map(|e| e.kind()),
        Some(ErrorKind::TopologyDiffers)
    );
    taker.complete(vec![held]).await;
    worker.hand_over(owned, taker, Vec::new()).await;
    let empty = transport.declare(&other, Declare::Create).await;
    empty.expect("the sixteen are empty");
}

#[tokio::test]
async fn verifying_finds_all_of_it_or_makes_nothing() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let transport = connect(&broker.url()).await;
    let mut topology = Topology::new(unique());
    topology.partitions = 4;
    let refused = transport.declare(&topology, Declare::Verify).await;
    assert_eq!(refused.expect_err("missing").kind(), ErrorKind::NoSuchQueue);
    let joined = transport
        .join(
            &Arc::new(topology.clone()),
            Declare::Verify,
            longshore_core::defaults::LOCK,
        )
        .await;
    assert_eq!(joined.err().map(|e| e.kind()), Some(ErrorKind::NoSuchQueue));
    let list = broker
        .rabbitmqctl(&["list_queues", "name"])
        .await
        .expect("a list");
    assert!(!list.contains(&*topology.queue), "{list}");
    transport
        .declare(&topology, Declare::Create)
        .await
        .expect("made");
    let verifier = connect(&broker.url()).await;
    verifier
        .declare(&topology, Declare::Verify)
        .await
        .expect("found");
    let queue = Arc::new(topology.clone());
    let membership = verifier
        .join(&queue, Declare::Verify, longshore_core::defaults::LOCK)
        .await
        .expect("joined");
    let owned = membership
        .acquire(Claim::Partition(2))
        .await
        .expect("an answer");
    assert!(owned.is_some());
    for (name, again) in [
        ("s4.3", "s4.3"),
        ("s4.1.marker", "s4.1.marker"),
        ("s4.members", "s4.members"),
    ] {
        let name = format!("{}.{name}", topology.queue);
        broker
            .rabbitmqctl(&["delete_queue", &name])
            .await
            .expect("deleted");
        let refused = connect(&broker.url())
            .await
            .declare(&topology, Declare::Verify)
            .await;
        let refused = refused.expect_err(again);
        assert_eq!(refused.kind(), ErrorKind::NoSuchQueue, "{refused}");
        transport
            .declare(&topology, Declare::Create)
            .await
            .expect("made again");
    }
}

#[tokio::test]
async fn a_queue_cannot_have_any_number_of_partitions_nor_lanes_beside_them() {
    let orders = Orders::new(2).await;
    let transport = &orders.publisher;
    for wrong in [3, 12, 512] {
        let refused = transport
            .declare(&with(&orders.topology, wrong), Declare::Create)
            .await;
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Invalid));
    }
    let mut both = orders.topology.clone();
    both.lanes = vec![Name::new("high").expect("a name")];
    let refused = transport.declare(&both, Declare::Create).await;
    assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Invalid));
    let without = Arc::new(with(&orders.topology, 0));
    let refused = transport
        .join(&without, Declare::Create, longshore_core::defaults::LOCK)
        .await;
    assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Invalid));
}

#[tokio::test]
async fn a_topic_routes_by_the_bits_of_the_key_and_leaves_what_was_bound_before() {
    let mut orders = Orders::new(0).await;
    let topic = unique();
    orders.topology.topics = vec![topic.clone()];
    // A plain queue first, then four partitions, then sixteen.
    for partitions in [0, 4, 16] {
        orders.topology.partitions = partitions;
        let declared = orders
            .publisher
            .declare(&orders.topology, Declare::Create)
            .await;
        declared.expect("declared");
    }
    let worker = orders.worker().await;
    let mut takers = Vec::new();
    for index in 0..16 {
        takers.push(worker.take(index).await.1);
    }
    let owned = worker.own(Claim::Forwarder).await;
    let mut plain = worker.consume(owned).await;
    let keys: Vec<_> = (0..64).map(|_| RandomIds.text()).collect();
    let mut batch = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let mut envelope = message(&n.to_string());
        envelope.key = Some(key.clone());
        envelope.priority = (n % 2 == 0).then(|| "eu.high".into());
        let mut outgoing = orders.to_partition(0, envelope);
        outgoing.to = Destination::Topic(topic.clone());
        batch.push(outgoing);
    }
    let mut keyless = orders.to_partition(0, message("keyless"));
    keyless.to = Destination::Topic(topic.clone());
    batch.push(keyless);
    orders.send(batch).await;
    let mut expected = vec![Vec::new(); 16];
    for (n, key) in keys.iter().enumerate() {
        expected[usize::from(orders.index_of(key))].push(n.to_string());
    }
    for (taker, expected) in takers.iter_mut().zip(expected) {
        let held = taker.exactly(expected.len()).await;
        let found: Vec<_> = held.iter().map(body).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(body(&plain.one().await), "keyless");
    plain.nothing().await;
    for taker in &mut takers {
        taker.nothing().await;
    }
    let figures = worker.transport.admin().stats(&orders.topology.queue).await;
    assert_eq!(figures.expect("figures").ready, 0, "the four got nothing");
}

#[tokio::test]
async fn a_delayed_message_with_a_key_goes_to_its_partition() {
    let orders = Orders::new(4).await;
    let mut outgoing = orders.to_partition(2, message("later"));
    outgoing.delay = Duration::from_millis(200);
    let from = std::time::Instant::now();
    orders.send(vec![outgoing]).await;
    let worker = orders.worker().await;
    let (_, mut taker) = worker.take(2).await;
    let held = taker.one().await;
    assert_eq!((body(&held), held.attempt), ("later", 1));
    assert!(from.elapsed() >= Duration::from_millis(200));
}
