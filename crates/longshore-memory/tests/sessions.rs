//! Partitions: what order their messages keep, and where they go.

mod rig;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Destination, ErrorKind, Outgoing, Ownership, Part, Topology, Transport, Verdict,
};

use rig::{
    Consumer, acquire, attempts, broker, ids, kind, lost, message, name, outgoing, publish,
    sessions, verdict,
};

/// One partition with these messages in it, and one member that owns it.
async fn with_messages(
    transport: &Arc<dyn Transport>,
    count: usize,
) -> (
    Arc<Topology>,
    Box<dyn longshore_core::Membership>,
    Ownership,
) {
    let topology = sessions(1);
    let member = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    for at in 0..count {
        publish(transport, &topology, Some("k"), &at.to_string()).await;
    }
    let owned = acquire(&*member, Claim::Partition(0))
        .await
        .expect("it is free");
    (topology, member, owned)
}

#[tokio::test(start_paused = true)]
async fn the_window_is_that_of_the_queue_and_nothing_comes_twice_to_one_owner() {
    let transport = broker().open();
    let (topology, _member, owned) = with_messages(&transport, 40).await;
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let taken = consumer.take(32).await;
    assert!(consumer.is_quiet().await);
    assert!(
        taken
            .iter()
            .enumerate()
            .all(|(at, d)| d.envelope.id == at.to_string())
    );
    assert!(attempts(&taken).iter().all(|attempt| *attempt == 1));
    let refused = consumer.source.set_prefetch(64);
    assert_eq!(kind(refused), Err(ErrorKind::Unsupported));
    consumer.release(&taken[0], 1).await.expect("it is held");
    consumer.complete(&taken[5]).await.expect("it is held");
    assert_eq!(ids(&consumer.take(2).await), ["32", "33"]);
    assert!(consumer.is_quiet().await);
    let after = Duration::from_secs(1);
    let retry = consumer
        .settle(verdict(&taken[1], 1, Verdict::Retry { after }))
        .await;
    assert_eq!(retry, Err(ErrorKind::Unsupported));
    let stats = transport
        .admin()
        .stats(&topology.queue)
        .await
        .expect("figures");
    assert_eq!(
        (stats.ready, stats.in_flight, stats.consumers),
        (7, Some(32), Some(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_keeps_the_order_and_the_attempt_numbers() {
    let transport = broker().open();
    let (topology, member, owned) = with_messages(&transport, 6).await;
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let taken = consumer.take(4).await;
    consumer.start(&taken[0], 2).await.expect("it is held");
    consumer.complete(&taken[2]).await.expect("it is held");
    consumer.source.stop();
    // Given back in any order, one of them after two starts in its place.
    consumer.release(&taken[3], 1).await.expect("it is held");
    consumer.release(&taken[0], 3).await.expect("it is held");
    consumer.release(&taken[1], 1).await.expect("it is held");
    assert_eq!(consumer.receive(9).await.expect("the end").len(), 0);
    drop(consumer);
    member.release(owned).await.expect("it is ours");
    let next = acquire(&*member, owned.claim).await.expect("it is free");
    assert!(next.token > owned.token);
    let mut consumer = Consumer::of_partition(&transport, &topology, next).await;
    let again = consumer.take(5).await;
    assert_eq!(ids(&again), ["0", "1", "3", "4", "5"]);
    assert_eq!(attempts(&again), [3, 1, 1, 1, 1]);
    assert!(again.iter().all(|d| !d.suspect && !d.alone));
}

#[tokio::test(start_paused = true)]
async fn a_death_brings_suspects_back_first_and_their_noted_starts_count() {
    let broker = broker();
    let (dying, living) = (broker.open(), broker.open());
    let (topology, member, owned) = with_messages(&dying, 4).await;
    let mut consumer = Consumer::of_partition(&dying, &topology, owned).await;
    let taken = consumer.take(3).await;
    for attempt in [2, 3] {
        consumer
            .start(&taken[1], attempt)
            .await
            .expect("it is held");
    }
    drop((consumer, member));
    let member = living
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    for (round, alone) in [(2, false), (3, true)] {
        let owned = acquire(&*member, owned.claim).await.expect("it is free");
        assert_eq!(owned.token, round);
        let mut consumer = Consumer::of_partition(&living, &topology, owned).await;
        let again = consumer.take(3).await;
        assert_eq!(ids(&again), ["0", "1", "2"]);
        // Delivered but never noted: the first start may have happened. Nothing else is counted.
        assert_eq!(attempts(&again), [2, 4, 2]);
        assert!(again.iter().all(|d| d.suspect && d.alone == alone));
        broker.lose_ownership(&topology.queue, 0);
        assert_eq!(lost(&*member).await, [owned]);
        assert_eq!(consumer.end().await, ErrorKind::Stale);
        assert_eq!(
            consumer.lost().await,
            again.iter().map(|d| d.receipt).collect::<Vec<_>>()
        );
        assert_eq!(consumer.lost().await, []);
        assert_eq!(consumer.complete(&again[0]).await, Err(ErrorKind::Stale));
        assert_eq!(consumer.start(&again[0], 9).await, Err(ErrorKind::Stale));
    }
    let owned = acquire(&*member, owned.claim).await.expect("it is free");
    let mut consumer = Consumer::of_partition(&living, &topology, owned).await;
    let all = consumer.take(4).await;
    let fresh = all.last().expect("the last");
    assert_eq!(
        (fresh.attempt, fresh.suspect, fresh.alone),
        (1, false, false)
    );
}

#[tokio::test(start_paused = true)]
async fn another_number_of_partitions_is_refused_while_messages_wait_in_the_first() {
    let transport = broker().open();
    let (topology, member, owned) = with_messages(&transport, 1).await;
    for (partitions, answer) in [
        (1, Ok(())),
        (2, Err(ErrorKind::TopologyDiffers)),
        (3, Err(ErrorKind::Invalid)),
        (512, Err(ErrorKind::Invalid)),
    ] {
        for declare in [Declare::Create, Declare::Verify] {
            let declared = transport.declare(&sessions(partitions), declare).await;
            assert_eq!(kind(declared), answer, "{partitions}");
        }
    }
    let two = sessions(2);
    let unknown = transport
        .publish(vec![outgoing(&two, message(Some("k"), "x"))])
        .await;
    let unknown: Vec<_> = unknown.into_iter().map(kind).collect();
    assert_eq!(unknown, [Err(ErrorKind::NoSuchQueue)]);
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let taken = consumer.next().await;
    consumer.dead_letter(&taken).await.expect("it is held");
    assert_eq!(
        kind(transport.declare(&two, Declare::Verify).await),
        Err(ErrorKind::NoSuchQueue)
    );
    transport
        .declare(&two, Declare::Create)
        .await
        .expect("the partitions are empty");
    drop((consumer, member));
    // A dead letter of the old partitions goes to the one its key has now.
    let dead = transport
        .admin()
        .dead_letters(&topology.queue, None, 9)
        .await
        .expect("a list");
    assert_eq!(dead[0].attempts, 1);
    let answers = transport
        .admin()
        .redrive(&topology.queue, &[dead[0].id.clone()])
        .await;
    assert!(answers.iter().all(Result::is_ok));
    let member = transport
        .join(&two, Declare::Verify, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    let rig_part = rig::partition("k", &two);
    let Part::Partition { index, .. } = rig_part else {
        panic!("{rig_part:?}");
    };
    let owned = acquire(&*member, Claim::Partition(index))
        .await
        .expect("it is free");
    let mut consumer = Consumer::of_partition(&transport, &two, owned).await;
    let again = consumer.next().await;
    assert_eq!((&*again.envelope.id, again.attempt), ("0", 1));
}

#[tokio::test(start_paused = true)]
async fn scheduled_messages_join_the_end_when_they_are_due() {
    let transport = broker().open();
    let (topology, _member, owned) = with_messages(&transport, 1).await;
    let later = Outgoing {
        delay: Duration::from_secs(5),
        ..outgoing(&topology, message(Some("k"), "later"))
    };
    assert!(
        transport
            .publish(vec![later])
            .await
            .iter()
            .all(Result::is_ok)
    );
    publish(&transport, &topology, Some("k"), "1").await;
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let start = tokio::time::Instant::now();
    assert_eq!(ids(&consumer.take(3).await), ["0", "1", "later"]);
    assert!(start.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_topic_reaches_the_partition_of_a_key_and_the_plain_queue_without_one() {
    let transport = broker().open();
    let mut topology = Topology::new(name("orders"));
    (topology.partitions, topology.topics) = (4, vec![name("events")]);
    let topology = Arc::new(topology);
    let member = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    for key in [Some("a"), None, Some("b")] {
        let outgoing = Outgoing {
            to: Destination::Topic(name("events")),
            ..outgoing(&topology, message(key, key.unwrap_or("none")))
        };
        assert!(
            transport
                .publish(vec![outgoing])
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
    for key in ["a", "b"] {
        let Part::Partition { index, .. } = rig::partition(key, &topology) else {
            panic!("{key}");
        };
        let owned = acquire(&*member, Claim::Partition(index))
            .await
            .expect("it is free");
        let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
        assert_eq!(consumer.next().await.envelope.id, key);
    }
    let owned = acquire(&*member, Claim::Forwarder)
        .await
        .expect("it is free");
    let mut consumer = Consumer::of(&transport, &topology, Part::Lane(0), Some(owned)).await;
    assert_eq!(consumer.next().await.envelope.id, "none");
    let stats = transport
        .admin()
        .stats(&topology.queue)
        .await
        .expect("figures");
    assert_eq!((stats.ready, stats.in_flight), (2, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_a_partition_are_those_of_its_queue_and_go_back_to_it() {
    let transport = broker().open();
    let (topology, _member, owned) = with_messages(&transport, 3).await;
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let taken = consumer.take(2).await;
    consumer.dead_letter(&taken[0]).await.expect("it is held");
    let admin = transport.admin();
    let dead = admin
        .dead_letters(&topology.queue, None, 9)
        .await
        .expect("a list");
    assert_eq!(dead.len(), 1);
    let answers = admin.redrive(&topology.queue, &[dead[0].id.clone()]).await;
    assert!(answers.iter().all(Result::is_ok));
    let rest = consumer.take(2).await;
    assert_eq!(ids(&rest), ["2", "0"]);
    assert_eq!(attempts(&rest), [1, 1]);
    for delivery in taken[1..].iter().chain(&rest) {
        consumer.complete(delivery).await.expect("it is held");
    }
    let stats = admin.stats(&topology.queue).await.expect("figures");
    assert_eq!((stats.ready, stats.in_flight, stats.dead), (0, Some(0), 0));
}

#[tokio::test(start_paused = true)]
async fn the_store_refuses_the_state_of_an_owner_of_before() {
    let transport = broker().open();
    let (topology, member, owned) = with_messages(&transport, 1).await;
    member.release(owned).await.expect("it is ours");
    let next = acquire(&*member, owned.claim).await.expect("it is free");
    let store = transport.store().expect("a store");
    let scope = topology.scope(Part::Partition { index: 0, of: 1 });
    for (token, answer) in [(owned.token, Err(ErrorKind::Stale)), (next.token, Ok(()))] {
        let write = longshore_core::StateWrite {
            key: "k".into(),
            message: "0".into(),
            token,
            value: Some("state".into()),
        };
        assert_eq!(kind(store.save(&scope, &write).await), answer);
    }
}
