//! Counting starts: what is written where, by whom, and what is never counted.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use longshore_core::{Envelope, ErrorKind, Settlement, Verdict};
use server::{Consumer, Server, body, publish, subscription, until};

const LOCK: Duration = Duration::from_millis(1200);

fn numbers(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_dead_consumer_is_a_suspect_whose_start_is_written_first() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut dying = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    assert_eq!(dying.one().await.attempt, 1);
    drop(dying);
    let mut heir = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    let delivery = heir.one().await;
    assert_eq!((delivery.attempt, delivery.suspect), (2, true));
    assert_eq!(server.pending("q")[0].1, 1, "a take-over is no start");
    heir.settler
        .start(&[(delivery.receipt, delivery.attempt)])
        .await
        .pop()
        .unwrap()
        .unwrap();
    assert_eq!(server.pending("q")[0].1, 2);
    // Written twice, it is still one start.
    heir.settler
        .start(&[(delivery.receipt, delivery.attempt)])
        .await
        .pop()
        .unwrap()
        .unwrap();
    assert_eq!(server.pending("q")[0].1, 2);
    heir.settle(
        delivery,
        Verdict::Retry {
            after: Duration::ZERO,
        },
    )
    .await
    .unwrap();
    let again = heir.one().await;
    assert_eq!((again.attempt, again.suspect), (3, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn takeovers_without_a_start_never_count() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    publish_first(&server, "q", 3).await;
    for life in 0..4 {
        let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
        let got = consumer.receive(3).await;
        let expected = if life == 0 { (1, false) } else { (2, true) };
        assert!(
            got.iter().all(|d| (d.attempt, d.suspect) == expected),
            "{life}: {got:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_back_too_often_is_taken_one_at_a_time() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    publish_first(&server, "q", 5).await;
    for _ in 0..2 {
        let mut dying = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
        for delivery in dying.receive(5).await {
            if delivery.suspect {
                dying
                    .settler
                    .start(&[(delivery.receipt, delivery.attempt)])
                    .await
                    .pop()
                    .unwrap()
                    .unwrap();
            }
        }
    }
    // Every one has two starts behind it now.
    let mut heir = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["fresh".to_owned()]).await;
    let mut suspects = 0;
    let mut fresh = 0;
    while suspects < 5 {
        let delivery = heir.one().await;
        if body(&delivery) == "fresh" {
            assert_eq!((delivery.attempt, delivery.suspect), (1, false));
            fresh += 1;
        } else {
            assert_eq!((delivery.attempt, delivery.suspect), (3, true));
            suspects += 1;
            let beside = heir.receive_within(1, Duration::from_millis(300)).await;
            assert!(beside.iter().all(|d| !d.suspect), "two suspects at a time");
            fresh += beside.len();
            heir.settle(delivery, Verdict::Complete).await.unwrap();
        }
    }
    assert_eq!(fresh, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_keeps_its_number_and_costs_nothing() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut first = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    for _ in 0..3 {
        let delivery = first.one().await;
        assert_eq!((delivery.attempt, delivery.suspect), (1, false));
        first
            .settle(
                delivery,
                Verdict::Release {
                    after: Duration::ZERO,
                },
            )
            .await
            .unwrap();
    }
    // A start, a death, and a suspect that is given back before it starts.
    let _running = first.one().await;
    drop(first);
    let mut heir = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    for _ in 0..3 {
        let delivery = heir.one().await;
        assert_eq!((delivery.attempt, delivery.suspect), (2, true));
        heir.settle(
            delivery,
            Verdict::Release {
                after: Duration::ZERO,
            },
        )
        .await
        .unwrap();
    }
    // Noted and then given back all the same: the caller says that it has not started.
    let delivery = heir.one().await;
    heir.settler
        .start(&[(delivery.receipt, delivery.attempt)])
        .await
        .pop()
        .unwrap()
        .unwrap();
    heir.settle(
        delivery,
        Verdict::Release {
            after: Duration::ZERO,
        },
    )
    .await
    .unwrap();
    assert_eq!(heir.one().await.attempt, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_what_somebody_else_holds() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut slow = Consumer::new(&transport, subscription("q", 4, Duration::from_secs(30))).await;
    publish(&transport, "q", numbers(4)).await;
    let held = slow.receive(4).await;
    let ids: Vec<(String, String, u64, u64)> =
        server.query("XPENDING ls:{q}:stream longshore - + 10");
    // A thief whose claims nobody can see coming.
    for (id, ..) in &ids {
        let _: redis::Value = server.query(&format!(
            "XCLAIM ls:{{q}}:stream longshore thief 0 {id} JUSTID"
        ));
    }
    let receipts: Vec<_> = held.iter().map(|d| d.receipt).collect();
    let started = slow.settler.start(&[(receipts[0], 2)]).await.pop().unwrap();
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Stale);
    let verdicts = [
        Verdict::Retry {
            after: Duration::ZERO,
        },
        Verdict::Retry {
            after: Duration::from_secs(1),
        },
        Verdict::Release {
            after: Duration::ZERO,
        },
    ];
    for (receipt, verdict) in receipts[1..].iter().zip(verdicts) {
        let settlement = Settlement::new(*receipt, 1, verdict, Envelope::default());
        let refused = slow
            .settler
            .settle(vec![settlement])
            .await
            .pop()
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Stale);
    }
    assert_eq!(server.pending("q"), vec![("thief".to_owned(), 1); 4]);
    assert_eq!(server.query::<u64>("EXISTS ls:{q}:delayed ls:{q}:dead"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_taken_away_is_reported_by_the_next_renewal() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut slow = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    publish(&transport, "q", numbers(2)).await;
    let held = slow.receive(2).await;
    let ids: Vec<(String, String, u64, u64)> =
        server.query("XPENDING ls:{q}:stream longshore - + 10");
    let id = &ids[1].0;
    let _: redis::Value = server.query(&format!(
        "XCLAIM ls:{{q}}:stream longshore thief 0 {id} JUSTID"
    ));
    assert_eq!(slow.lost_within(LOCK).await, [held[1].receipt]);
    // The other one is kept over many times its lock.
    tokio::time::sleep(LOCK * 3).await;
    let owners: Vec<_> = server
        .pending("q")
        .into_iter()
        .map(|(owner, _)| owner)
        .collect();
    assert!(owners[0] != "thief" && owners.len() == 2, "{owners:?}");
    let mut held = held.into_iter();
    assert!(slow.complete(vec![held.next().unwrap()]).await[0].is_ok());
}

#[tokio::test]
async fn handlers_that_block_their_runtime_keep_their_locks() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut blocking = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    let delivery = blocking.one().await;
    // The one thread of this runtime does nothing else for three locks.
    std::thread::sleep(LOCK * 3);
    let idle: Vec<(String, String, u64, u64)> =
        server.query("XPENDING ls:{q}:stream longshore - + 10");
    assert!(u128::from(idle[0].2) < LOCK.as_millis(), "{idle:?}");
    assert!(blocking.complete(vec![delivery]).await[0].is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_consumer_leaves_no_name_behind() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    publish(&transport, "q", numbers(1)).await;
    let delivery = consumer.one().await;
    consumer.source.stop();
    assert!(consumer.complete(vec![delivery]).await[0].is_ok());
    until("the name is gone", || {
        let consumers: Vec<redis::Value> = server.query("XINFO CONSUMERS ls:{q}:stream longshore");
        consumers.is_empty()
    })
    .await;
}

/// Messages of a plain client in a queue that has no consumer yet.
async fn publish_first(server: &Server, name: &str, count: u32) {
    for n in 0..count {
        let _: String = server.query(&format!("XADD ls:{{{name}}}:stream * type t body {n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_has_the_number_it_is_given_however_often_it_is_noted() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    publish(&transport, "q", ["a".to_owned()]).await;
    let first = consumer.one().await;
    let after = Duration::ZERO;
    consumer
        .settle(first, Verdict::Retry { after })
        .await
        .unwrap();
    let second = consumer.one().await;
    assert_eq!(second.attempt, 2);
    // The first copy's start is in the entry, so this one's count is less by one.
    for (number, count) in [(2, 1), (3, 2), (3, 2), (5, 4)] {
        let noted = consumer.settler.start(&[(second.receipt, number)]).await;
        assert!(noted[0].is_ok());
        assert_eq!(server.pending("q")[0].1, count);
    }
    let mut settlement = Settlement::complete(second.receipt, 5);
    settlement.verdict = Verdict::Retry { after };
    consumer.settler.settle(vec![settlement]).await[0]
        .as_ref()
        .unwrap();
    assert_eq!(consumer.one().await.attempt, 6);
}
