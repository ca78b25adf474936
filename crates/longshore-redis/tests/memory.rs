//! A server without memory: nothing new is taken, everything held can be settled.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use longshore_core::{Destination, ErrorKind, Reason, Topology, Verdict};
use server::{Consumer, Server, message, publish, queue, subscription};

const LOCK: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_publishing_and_lets_every_settlement_pass() {
    let server = Server::start(&["maxmemory-policy noeviction"]).await;
    let transport = server.connect().await;
    let mut topology = Topology::new(queue("q"));
    topology.topics = vec![queue("t")];
    transport
        .declare(&topology, Default::default())
        .await
        .unwrap();
    let mut consumer = Consumer::new(&transport, subscription("q", 16, LOCK)).await;
    publish(&transport, "q", (0..8).map(|n| n.to_string())).await;
    let mut later = message("q", "later");
    later.delay = Duration::from_millis(1500);
    transport.publish(vec![later]).await.pop().unwrap().unwrap();
    let mut held = consumer.receive(8).await.into_iter();
    server.query::<String>("CONFIG SET maxmemory 1");

    let mut delayed = message("q", "x");
    delayed.delay = Duration::from_secs(5);
    let mut to_topic = message("q", "x");
    to_topic.to = Destination::Topic(queue("t"));
    for refused in transport
        .publish(vec![message("q", "x"), delayed, to_topic])
        .await
    {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    }
    let mut next = || held.next().unwrap();
    consumer.settle(next(), Verdict::Complete).await.unwrap();
    consumer
        .settle(
            next(),
            Verdict::Retry {
                after: Duration::ZERO,
            },
        )
        .await
        .unwrap();
    consumer
        .settle(
            next(),
            Verdict::Retry {
                after: Duration::from_millis(100),
            },
        )
        .await
        .unwrap();
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: "x".into(),
    };
    consumer.settle(next(), dead).await.unwrap();
    consumer
        .settle(
            next(),
            Verdict::Release {
                after: Duration::ZERO,
            },
        )
        .await
        .unwrap();
    // Two retries, one that was given back, and the delayed one: promoted all the same.
    let back = consumer.receive(4).await;
    let mut attempts: Vec<_> = back.iter().map(|d| d.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 2, 2]);
    // Locks are renewed, too.
    assert!(consumer.lost_within(LOCK * 2).await.is_empty());
    let rest: Vec<_> = back.into_iter().chain(held).collect();
    assert!(consumer.complete(rest).await.iter().all(Result::is_ok));
    server.query::<String>("CONFIG SET maxmemory 0");
    publish(&transport, "q", ["again".to_owned()]).await;
    assert_eq!(consumer.one().await.envelope.body, "again");
}
