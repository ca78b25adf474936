//! Lanes: what belongs to one comes back to it, whatever happens.
#![allow(clippy::unwrap_used)]

mod server;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Declare, Destination, ErrorKind, Outgoing, Part, Reason, Subscription, Topology, Transport,
    Verdict,
};
use server::{Consumer, Server, body, message, queue, subscription, until};

const LOCK: Duration = Duration::from_secs(30);

fn topology(topics: &[&str]) -> Topology {
    let mut topology = Topology::new(queue("q"));
    topology.lanes = vec![queue("high"), queue("low")];
    topology.topics = topics.iter().map(|topic| queue(topic)).collect();
    topology
}

fn to_lane(lane: u8, body: &str) -> Outgoing {
    let mut outgoing = message("q", body);
    outgoing.to = Destination::Queue(queue("q"), Part::Lane(lane));
    outgoing.envelope.priority = topology(&[]).lane(lane).map(|name| name.as_str().into());
    outgoing
}

async fn on_lane(transport: &Arc<dyn Transport>, lane: u8) -> Consumer {
    let subscription = Subscription {
        topology: Arc::new(topology(&[])),
        part: Part::Lane(lane),
        ..subscription("q", 8, LOCK)
    };
    Consumer::new(transport, subscription).await
}

async fn publish(transport: &Arc<dyn Transport>, outgoing: Outgoing) {
    transport.publish(vec![outgoing]).await[0].as_ref().unwrap();
}

fn dead() -> Verdict {
    Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    }
}

async fn redrive_all(transport: &Arc<dyn Transport>) {
    let admin = transport.admin();
    let letters = admin.dead_letters(&queue("q"), None, 10).await.unwrap();
    let ids: Vec<_> = letters.into_iter().map(|letter| letter.id).collect();
    for answer in admin.redrive(&queue("q"), &ids).await {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_to_its_own_lane() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut normal = on_lane(&transport, 0).await;
    let mut high = on_lane(&transport, 1).await;
    let mut low = on_lane(&transport, 2).await;
    for (lane, text) in [(0, "0"), (1, "1"), (2, "2")] {
        publish(&transport, to_lane(lane, text)).await;
        let mut later = to_lane(lane, text);
        later.delay = Duration::from_millis(200);
        publish(&transport, later).await;
    }
    let soon = Duration::from_millis(100);
    for (consumer, name) in [(&mut normal, "0"), (&mut high, "1"), (&mut low, "2")] {
        for delivery in consumer.receive(2).await {
            assert_eq!(body(&delivery), name);
            consumer
                .settle(delivery, Verdict::Retry { after: soon })
                .await
                .unwrap();
        }
        for delivery in consumer.receive(2).await {
            assert_eq!((body(&delivery).as_str(), delivery.attempt), (name, 2));
            consumer
                .settle(delivery, Verdict::Release { after: soon })
                .await
                .unwrap();
        }
        let mut two = consumer.receive(2).await;
        assert!(two.iter().all(|d| body(d) == name && d.attempt == 2));
        consumer.settle(two.pop().unwrap(), dead()).await.unwrap();
        assert!(consumer.complete(two).await[0].is_ok());
    }
    let stats = transport.admin().stats(&queue("q")).await.unwrap();
    assert_eq!((stats.ready, stats.dead, stats.consumers), (0, 3, Some(3)));
    redrive_all(&transport).await;
    for (consumer, name) in [(&mut normal, "0"), (&mut high, "1"), (&mut low, "2")] {
        let back = consumer.one().await;
        assert_eq!((body(&back).as_str(), back.attempt), (name, 1));
        assert!(consumer.complete(vec![back]).await[0].is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_all_lanes_are_known_by_the_name_of_the_queue_alone() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut high = on_lane(&transport, 1).await;
    for lane in [0, 0, 0, 1, 2, 2] {
        publish(&transport, to_lane(lane, "x")).await;
    }
    let mut later = to_lane(2, "x");
    later.delay = Duration::from_secs(60);
    publish(&transport, later).await;
    let held = high.one().await;
    let other = server.connect().await;
    let stats = other.admin().stats(&queue("q")).await.unwrap();
    assert_eq!(
        (stats.ready, stats.in_flight, stats.delayed),
        (5, Some(1), Some(1))
    );
    assert!(stats.oldest.is_some());
    assert!(high.complete(vec![held]).await[0].is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_message_takes_the_lane_of_its_priority_where_the_queue_has_it() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut plain = Topology::new(queue("plain"));
    plain.topics = vec![queue("t")];
    for topology in [&topology(&["t"]), &plain] {
        let declared = transport.declare(topology, Declare::Create).await;
        declared.unwrap();
    }
    let mut batch = Vec::new();
    for priority in ["high", "nowhere", "}:dedup:{", ""] {
        let mut outgoing = message("q", priority);
        outgoing.to = Destination::Topic(queue("t"));
        outgoing.envelope.priority =
            Some(priority.into()).filter(|p: &longshore_core::Text| !p.is_empty());
        batch.push(outgoing);
    }
    for answer in transport.publish(batch).await {
        answer.unwrap();
    }
    for (stream, count) in [
        ("ls:{q}:p.high:stream", 1),
        ("ls:{q}:p.low:stream", 0),
        ("ls:{q}:stream", 3),
        ("ls:{plain}:stream", 4),
    ] {
        assert_eq!(server.query::<u64>(&format!("XLEN {stream}")), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_misses_a_lane_and_creates_nothing() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let bare = Topology::new(queue("q"));
    transport.declare(&bare, Declare::Create).await.unwrap();
    let refused = transport.declare(&topology(&[]), Declare::Verify).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSuchQueue);
    let refused = transport
        .publish(vec![to_lane(1, "x")])
        .await
        .pop()
        .unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSuchQueue);
    assert_eq!(server.query::<Vec<String>>("KEYS *"), ["ls:{q}:stream"]);
    let created = transport.declare(&topology(&[]), Declare::Create).await;
    created.unwrap();
    let found = transport.declare(&topology(&[]), Declare::Verify).await;
    found.unwrap();
    // A full server lets pass what is there.
    server.query::<String>("CONFIG SET maxmemory 1");
    let found = transport.declare(&topology(&[]), Declare::Create).await;
    found.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_without_a_name_or_with_a_hostile_one_is_refused() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let declared = transport.declare(&topology(&[]), Declare::Create).await;
    declared.unwrap();
    for priority in [None, Some("a}b"), Some("")] {
        let mut outgoing = to_lane(1, "x");
        outgoing.envelope.priority = priority.map(Into::into);
        let refused = transport.publish(vec![outgoing]).await.pop().unwrap();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_of_a_lane_that_is_gone_goes_to_the_normal_lane() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut normal = on_lane(&transport, 0).await;
    let mut later = to_lane(1, "stray");
    later.delay = Duration::from_millis(300);
    publish(&transport, later).await;
    server.query::<u64>("HDEL ls:{q}:meta p.high");
    assert_eq!(body(&normal.one().await), "stray");
    until("nothing is left over", || {
        server.query::<u64>("ZCARD ls:{q}:delayed") == 0
    })
    .await;
}
