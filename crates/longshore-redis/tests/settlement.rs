//! Publishing, receiving and settling on a real server.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use longshore_core::{ErrorKind, Reason, Settlement, Verdict};
use server::{Consumer, Server, body, message, publish, queue, subscription};

const LOCK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_received_in_order_and_gone_once_completed() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 64, LOCK)).await;
    publish(&transport, "q", (0..200).map(|n| n.to_string())).await;
    for n in (0..200).step_by(50) {
        let got = consumer.receive(50).await;
        let bodies: Vec<_> = got.iter().map(body).collect();
        assert_eq!(
            bodies,
            (n..n + 50).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        assert!(
            got.iter()
                .all(|d| d.attempt == 1 && !d.suspect && d.defect.is_none())
        );
        assert!(consumer.complete(got).await.into_iter().all(|a| a.is_ok()));
    }
    assert_eq!(server.query::<u64>("XLEN ls:{q}:stream"), 0);
    let stats = transport.admin().stats(&queue("q")).await.unwrap();
    assert_eq!(
        (stats.ready, stats.in_flight, stats.consumers),
        (0, Some(0), Some(1))
    );
}

/// Found by inverting a byte of a pipeline: `XDEL` was refused, `XACK` was done, and both counted as done.
#[tokio::test(flavor = "multi_thread")]
async fn a_completion_whose_entry_may_not_be_deleted_is_no_completion() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["a".to_owned(), "b".to_owned()]).await;
    let got = consumer.receive(2).await;
    let completions = || {
        got.iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt))
            .collect()
    };
    server.query::<String>("ACL SETUSER default -xdel");
    for answer in consumer.settler.settle(completions()).await {
        assert_eq!(answer.unwrap_err().error.kind(), ErrorKind::Denied);
    }
    server.query::<String>("ACL SETUSER default +xdel");
    consumer.settler.settle(completions()).await;
    assert_eq!(server.query::<u64>("XLEN ls:{q}:stream"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_counts_on_and_a_dead_letter_is_listed_and_redriven() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["a".to_owned()]).await;
    for attempt in 1..4 {
        let delivery = consumer.one().await;
        assert_eq!((delivery.attempt, delivery.suspect), (attempt, false));
        let after = Duration::from_millis(if attempt == 1 { 0 } else { 30 });
        consumer
            .settle(delivery, Verdict::Retry { after })
            .await
            .unwrap();
    }
    let delivery = consumer.one().await;
    assert_eq!(delivery.attempt, 4);
    let verdict = Verdict::DeadLetter {
        reason: Reason::Exhausted,
        detail: "no".repeat(4000),
    };
    consumer.settle(delivery, verdict).await.unwrap();
    let admin = transport.admin();
    let dead = admin.dead_letters(&queue("q"), None, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].attempts, dead[0].detail.len(), &dead[0].reason),
        (4, 4096, &Reason::Exhausted)
    );
    assert!(dead[0].at.is_some() && dead[0].envelope.body == "a" && dead[0].envelope.id == "id");
    assert!(admin.redrive(&queue("q"), &[dead[0].id.clone()]).await[0].is_ok());
    let again = admin.redrive(&queue("q"), &[dead[0].id.clone()]).await;
    assert_eq!(again[0].as_ref().unwrap_err().kind(), ErrorKind::Stale);
    let delivery = consumer.one().await;
    assert_eq!((delivery.attempt, body(&delivery)), (1, "a".into()));
    assert!(consumer.complete(vec![delivery]).await[0].is_ok());
    assert_eq!(server.query::<u64>("XLEN ls:{q}:dead"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_nowhere_is_refused_and_its_neighbours_are_not() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let _consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    let mut delayed = message("nowhere", "x");
    delayed.delay = Duration::from_secs(1);
    let batch = vec![
        message("q", "1"),
        message("nowhere", "x"),
        delayed,
        message("q", "2"),
    ];
    let kinds: Vec<_> = transport
        .publish(batch)
        .await
        .into_iter()
        .map(|a| a.err().map(|e| e.kind()))
        .collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(ErrorKind::NoSuchQueue),
            Some(ErrorKind::NoSuchQueue),
            None
        ]
    );
    assert_eq!(
        server.query::<u64>("EXISTS ls:{nowhere}:stream ls:{nowhere}:delayed"),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_settled_once() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["a".to_owned()]).await;
    let delivery = consumer.one().await;
    let (receipt, attempt) = (delivery.receipt, delivery.attempt);
    consumer.settle(delivery, Verdict::Complete).await.unwrap();
    let again = consumer
        .settler
        .settle(vec![Settlement::complete(receipt, attempt)])
        .await;
    let refused = again.into_iter().next().unwrap().unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Stale);
    assert!(refused.settlement.is_none());
}
