//! Delays: how precise, and what cannot stop them.
#![allow(clippy::unwrap_used)]

mod server;

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{Ids, SeededIds};
use server::{Consumer, Server, body, message, publish, queue, subscription, until};
use tokio::time::Instant;

const LOCK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_random_delays_are_never_early_and_hardly_late() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 500, LOCK)).await;
    let ids = SeededIds::new(7);
    let mut due = BTreeMap::new();
    for n in 0..1000 {
        let delay = Duration::from_millis(50 + (ids.next() % 9950) as u64);
        let mut outgoing = message("q", n.to_string());
        outgoing.delay = delay;
        let asked = Instant::now();
        transport
            .publish(vec![outgoing])
            .await
            .pop()
            .unwrap()
            .unwrap();
        due.insert(n.to_string(), (asked + delay, Instant::now() + delay));
    }
    // What came due before is taken only from here on.
    let receiving = Instant::now();
    let mut late = Vec::new();
    while !due.is_empty() {
        for delivery in consumer.receive(1).await {
            let now = Instant::now();
            let (earliest, latest) = due.remove(&body(&delivery)).unwrap();
            assert!(now >= earliest, "early by {:?}", earliest - now);
            late.push(now.saturating_duration_since(latest.max(receiving)));
            consumer
                .complete(vec![delivery])
                .await
                .pop()
                .unwrap()
                .unwrap();
        }
    }
    late.sort();
    assert!(
        late[989] < Duration::from_millis(250),
        "p99 {:?}",
        late[989]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_no_message_becomes_a_dead_letter_and_holds_back_nobody() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    let torn: [&[u8]; 5] = [
        b"junk",
        b"",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x011\0\0\0\x01x",
        b"\0\0\0\x09short",
    ];
    for (score, member) in torn.iter().enumerate() {
        let mut command = redis::cmd("ZADD");
        command.arg("ls:{q}:delayed").arg(score).arg(*member);
        let _: u64 = server.try_query(&command).unwrap();
    }
    let mut good = message("q", "good");
    good.delay = Duration::from_millis(100);
    transport.publish(vec![good]).await.pop().unwrap().unwrap();
    assert_eq!(body(&consumer.one().await), "good");
    until("all five are set aside", || {
        server.query::<u64>("XLEN ls:{q}:dead") == 5
    })
    .await;
    let dead = transport
        .admin()
        .dead_letters(&queue("q"), None, 10)
        .await
        .unwrap();
    assert!(
        dead.iter()
            .all(|letter| letter.reason.as_str() == "hostile")
    );
    assert_eq!(dead[0].envelope.body, torn[0]);
    assert_eq!(server.query::<u64>("ZCARD ls:{q}:delayed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_gets_its_delayed_messages_once_it_is_back() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    let mut later = message("q", "later");
    later.delay = Duration::from_millis(300);
    transport.publish(vec![later]).await.pop().unwrap().unwrap();
    assert_eq!(server.query::<u64>("DEL ls:{q}:stream"), 1);
    assert_eq!(body(&consumer.one().await), "later");
    publish(&transport, "q", ["after".to_owned()]).await;
    assert_eq!(body(&consumer.one().await), "after");
    assert!(consumer.source.trouble().is_none());
}
