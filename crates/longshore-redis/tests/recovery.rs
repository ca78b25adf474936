//! Lost answers, cut and half-open connections, restarts.
#![allow(clippy::unwrap_used)]

mod server;

use std::{sync::Arc, time::Duration};

use longshore_core::{ConnectOptions, Declare, ErrorKind, Reason, Settlement, Transport, Verdict};
use longshore_testing::proxy::{Direction, Flow, Proxy};
use server::{Consumer, Server, body, message, options, publish, queue, subscription, until};

/// So long that nothing in these tests comes back by an expired lock.
const LOCK: Duration = Duration::from_secs(60);

/// A connection is given up after this long without an answer.
fn impatient() -> ConnectOptions {
    let mut options = options();
    options.heartbeat = Duration::from_millis(500);
    options.confirm_timeout = Duration::from_secs(8);
    options
}

async fn proxied(server: &Server) -> (Proxy, Arc<dyn Transport>) {
    let proxy = Proxy::start(server.broker.addr(0)).await.unwrap();
    let url = proxy.url(&server.url());
    let transport = longshore_redis::connect(&url, impatient()).await.unwrap();
    (proxy, transport)
}

fn numbers(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_read_has_locked_is_found_and_costs_no_attempt() {
    let server = Server::start(&[]).await;
    let direct = server.connect().await;
    let (proxy, transport) = proxied(&server).await;
    let mut consumer = Consumer::new(&transport, subscription("q", 64, LOCK)).await;
    let mut lost = 0;
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        // Requests arrive, answers do not. A read is all but always waiting on the server.
        proxy.set(Direction::ToClient, Flow::Discard);
        publish(&direct, "q", numbers(20)).await;
        tokio::time::sleep(Duration::from_millis(100 + round * 600)).await;
        lost += server.pending("q").len();
        proxy.pass().await.unwrap();
        let got = consumer.receive(20).await;
        assert!(got.iter().all(|d| d.attempt == 1 && !d.suspect));
        let bodies: Vec<_> = got.iter().map(body).collect();
        assert_eq!(bodies, numbers(20).collect::<Vec<_>>());
        assert!(consumer.complete(got).await.iter().all(Result::is_ok));
        assert_eq!(server.pending("q").len(), 0);
    }
    assert!(lost > 0, "the server never handed anything out unseen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_answer_was_lost_is_done_once_and_answered() {
    let server = Server::start(&[]).await;
    let (proxy, transport) = proxied(&server).await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", numbers(5)).await;
    let held = consumer.receive(5).await;
    let verdicts = [
        Verdict::Complete,
        Verdict::Retry {
            after: Duration::from_secs(600),
        },
        Verdict::Retry {
            after: Duration::ZERO,
        },
        Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        },
        Verdict::Release {
            after: Duration::ZERO,
        },
    ];
    let batch: Vec<_> = held
        .into_iter()
        .zip(verdicts)
        .map(|(d, verdict)| Settlement::new(d.receipt, d.attempt, verdict, d.envelope))
        .collect();
    proxy.set(Direction::ToClient, Flow::Discard);
    let settler = Arc::clone(&consumer.settler);
    let settling = tokio::spawn(async move { settler.settle(batch).await });
    until("the server has done it", || {
        server.query::<u64>("XLEN ls:{q}:dead") == 1
    })
    .await;
    proxy.pass().await.unwrap();
    for answer in settling.await.unwrap() {
        answer.map_err(|refused| refused.error).unwrap();
    }
    assert_eq!(server.query::<u64>("XLEN ls:{q}:dead"), 1);
    assert_eq!(server.query::<u64>("ZCARD ls:{q}:delayed"), 1);
    let mut back: Vec<_> = consumer
        .receive(2)
        .await
        .iter()
        .map(|d| (body(d), d.attempt))
        .collect();
    back.sort();
    assert_eq!(back, [("2".to_owned(), 2), ("4".to_owned(), 1)]);
    assert!(
        consumer
            .receive_within(1, Duration::from_secs(1))
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let server = Server::start(&[]).await;
    let direct = server.connect().await;
    let (proxy, transport) = proxied(&server).await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&direct, "q", numbers(1)).await;
    let first = consumer.one().await;
    proxy.set_both(Flow::Freeze);
    until("it is said", || consumer.source.trouble().is_some()).await;
    publish(&direct, "q", numbers(3)).await;
    proxy.pass().await.unwrap();
    let got = consumer.receive(3).await;
    assert!(got.iter().all(|d| d.attempt == 1 && !d.suspect));
    // The lock has outlived the connection.
    assert!(consumer.complete(vec![first]).await[0].is_ok());
    assert!(consumer.complete(got).await.iter().all(Result::is_ok));
    until("all is well", || consumer.source.trouble().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_says_what_is_known() {
    let mut server = Server::start(&[]).await;
    let (proxy, transport) = proxied(&server).await;
    let _consumer = Consumer::new(&transport, subscription("q", 1, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    proxy.set(Direction::ToClient, Flow::Discard);
    let answer = transport
        .publish(vec![message("q", "lost")])
        .await
        .pop()
        .unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(
        server.query::<u64>("XLEN ls:{q}:stream"),
        2,
        "it was stored all the same"
    );
    proxy.pass().await.unwrap();
    server.broker.kill().await.unwrap();
    until_async(|| async {
        let answer = transport
            .publish(vec![message("q", "down")])
            .await
            .pop()
            .unwrap();
        answer.unwrap_err().kind() == ErrorKind::Unavailable
    })
    .await;
    server.broker.start_again().await.unwrap();
    until_async(|| async {
        transport
            .publish(vec![message("q", "up")])
            .await
            .pop()
            .unwrap()
            .is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_publisher_does_not_notice_a_restart() {
    // Otherwise Redis keeps back what it appends while an earlier fsync takes its time, up to 2 s.
    let mut server = Server::start(&["appendfsync always"]).await;
    let transport = server.connect().await;
    transport
        .declare(&longshore_core::Topology::new(queue("q")), Declare::Create)
        .await
        .unwrap();
    publish(&transport, "q", numbers(1)).await;
    server.broker.kill().await.unwrap();
    server.broker.start_again().await.unwrap();
    publish(&transport, "q", numbers(1)).await;
    assert_eq!(server.query::<u64>("XLEN ls:{q}:stream"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_scripts_and_groups_is_set_up_again_from_the_start() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    let held = consumer.one().await;
    for _ in 0..3 {
        server.query::<String>("SCRIPT FLUSH");
        server.query::<String>("FLUSHALL");
        // Before any worker has seen that the group is gone.
        let _: String = server.query("XADD ls:{q}:stream * type t body backlog");
        let delivery = consumer.one().await;
        assert_eq!((body(&delivery), delivery.attempt), ("backlog".into(), 1));
        consumer
            .settle(
                delivery,
                Verdict::Retry {
                    after: Duration::from_millis(50),
                },
            )
            .await
            .unwrap();
        let delivery = consumer.one().await;
        assert_eq!(delivery.attempt, 2);
        assert!(consumer.complete(vec![delivery]).await[0].is_ok());
    }
    let stale = consumer
        .settle(
            held,
            Verdict::Retry {
                after: Duration::ZERO,
            },
        )
        .await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_the_server_knows_every_message_and_count() {
    let mut server = Server::start(&["appendfsync always"]).await;
    let transport = server.connect_with(impatient()).await;
    let lock = Duration::from_secs(3);
    let mut dying = Consumer::new(&transport, subscription("q", 4, lock)).await;
    publish(&transport, "q", numbers(4)).await;
    assert_eq!(dying.receive(4).await.len(), 4);
    drop(dying);
    let mut heir = Consumer::new(&transport, subscription("q", 4, lock)).await;
    let held = heir.receive(4).await;
    for delivery in &held {
        heir.settler
            .start(&[(delivery.receipt, delivery.attempt)])
            .await
            .pop()
            .unwrap()
            .unwrap();
    }
    server.broker.kill().await.unwrap();
    until("it is said", || heir.source.trouble().is_some()).await;
    server.broker.start_again().await.unwrap();
    until("all is well", || heir.source.trouble().is_none()).await;
    let counts: Vec<_> = server
        .pending("q")
        .into_iter()
        .map(|(_, count)| count)
        .collect();
    assert_eq!(counts, [2; 4]);
    assert!(heir.complete(held).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_may_create_nothing_waits_and_says_so() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut verifying = subscription("q", 4, LOCK);
    verifying.declare = Declare::Verify;
    let refused = transport.subscribe(verifying.clone()).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::NoSuchQueue);
    transport
        .declare(&verifying.topology, Declare::Create)
        .await
        .unwrap();
    let mut consumer = Consumer::new(&transport, verifying.clone()).await;
    server.query::<u64>("DEL ls:{q}:stream");
    until("it is said", || consumer.source.trouble().is_some()).await;
    let mut delayed = message("q", "x");
    delayed.delay = Duration::from_millis(1);
    assert!(
        transport
            .publish(vec![delayed])
            .await
            .pop()
            .unwrap()
            .is_err()
    );
    assert_eq!(server.query::<u64>("EXISTS ls:{q}:stream"), 0);
    transport
        .declare(&verifying.topology, Declare::Create)
        .await
        .unwrap();
    publish(&transport, "q", numbers(1)).await;
    assert_eq!(body(&consumer.one().await), "0");
    assert!(consumer.source.trouble().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_something_else_is_refused_with_what_differs() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let declare = |name: &'static str| {
        let transport = Arc::clone(&transport);
        async move {
            let topology = longshore_core::Topology::new(queue(name));
            let error = transport
                .declare(&topology, Declare::Create)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TopologyDiffers);
            error.to_string()
        }
    };
    server.query::<String>("SET ls:{a}:stream x");
    assert!(
        declare("a")
            .await
            .contains("ls:{a}:stream holds a string where a stream belongs")
    );
    server.query::<String>("SET ls:{b}:delayed x");
    assert!(declare("b").await.contains("ls:{b}:delayed"));
    server.query::<String>("XGROUP CREATE ls:{c}:stream other 0 MKSTREAM");
    assert!(declare("c").await.contains("must be the only group"));
}

async fn until_async<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
