//! How often a message was started, over the deaths of its owners.

use longshore_core::{Delivery, ErrorKind, Ids, RandomIds, Reason, Settlement, Verdict};
use longshore_testing::brokers::{Broker, BrokerKind};

use super::worker::{Orders, give_back};
use crate::rig::{body, message};

/// Body, attempt, suspect, alone.
fn seen(delivery: &Delivery) -> (&str, u32, bool, bool) {
    (
        body(delivery),
        delivery.attempt,
        delivery.suspect,
        delivery.alone,
    )
}

#[tokio::test]
async fn starts_survive_crashes_and_broker_restarts() {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::lasting(&broker.url(), 1).await;
    orders.publish(0, 0..3).await;
    {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let held = taker.exactly(3).await;
        for (n, delivery) in held.iter().enumerate() {
            let n = n.to_string();
            assert_eq!(seen(delivery), (n.as_str(), 1, false, false));
        }
        // 0 fails twice, 1 is started once, 2 never.
        for start in [2, 3] {
            let noted = taker.settler.start(&[(held[0].receipt, start)]).await;
            assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        }
        worker.proxy.reset_all().await;
    }
    {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let held = taker.exactly(3).await;
        assert_eq!(seen(&held[0]), ("0", 4, true, false));
        assert_eq!(seen(&held[1]), ("1", 2, true, false));
        assert_eq!(seen(&held[2]), ("2", 2, true, false));
        let starts = [(held[0].receipt, 4), (held[1].receipt, 2)];
        let noted = taker.settler.start(&starts).await;
        assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        broker.kill().await.expect("dead");
        broker.start_again().await.expect("alive");
    }
    {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let held = taker.exactly(3).await;
        assert_eq!(seen(&held[0]), ("0", 5, true, true));
        assert_eq!(seen(&held[1]), ("1", 3, true, true));
        assert_eq!(seen(&held[2]), ("2", 2, true, true));
    }
}

#[tokio::test]
async fn a_message_without_an_id_is_counted_too() {
    let orders = Orders::new(1).await;
    let name = format!("{}.s1.0", orders.topology.queue);
    let mut raw = crate::raw::Raw::connect(&orders.url).await;
    raw.publish("", name.as_bytes(), 0, &[], b"plain").await;
    for attempt in 1..4 {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let held = taker.one().await;
        assert_eq!((body(&held), held.attempt), ("plain", attempt));
        assert_eq!(held.alone, attempt > 2);
        if held.suspect {
            let noted = taker.settler.start(&[(held.receipt, attempt)]).await;
            assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        }
    }
}

#[tokio::test]
async fn a_clean_hand_over_keeps_attempts_and_makes_no_suspects() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..40).await;
    let one = orders.worker().await;
    let (owned, mut taker) = one.take(0).await;
    let mut held = taker.exactly(20).await;
    // 0 waits for its third start; 1 is done; the others never started, 20 to 31 were never taken.
    let noted = taker.settler.start(&[(held[0].receipt, 2)]).await;
    assert!(noted.iter().all(Result::is_ok), "{noted:?}");
    held[0].attempt = 3;
    let done = held.remove(1);
    taker.complete(vec![done]).await;
    one.hand_over(owned, taker, held).await;

    let two = orders.worker().await;
    let (owned, mut taker) = two.take(0).await;
    let held = taker.exactly(32).await;
    assert_eq!(seen(&held[0]), ("0", 3, false, false));
    for (delivery, n) in held.iter().skip(1).zip(2..) {
        let n = n.to_string();
        assert_eq!(seen(delivery), (n.as_str(), 1, false, false));
    }
    // Once more, with all of it untouched.
    two.hand_over(owned, taker, held).await;
    let three = orders.worker().await;
    let (_, mut taker) = three.take(0).await;
    let held = taker.exactly(32).await;
    assert_eq!(seen(&held[0]), ("0", 3, false, false));
    assert_eq!(seen(&held[1]), ("2", 1, false, false));
}

#[tokio::test]
async fn a_hand_over_with_something_running_is_no_clean_one() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..2).await;
    let one = orders.worker().await;
    let (owned, mut taker) = one.take(0).await;
    let mut held = taker.exactly(2).await;
    give_back(&taker, held.split_off(1)).await;
    drop((taker, held));
    one.membership.release(owned).await.expect("released");
    let two = orders.worker().await;
    let (_, mut taker) = two.take(0).await;
    let held = taker.exactly(2).await;
    assert_eq!(seen(&held[0]), ("0", 2, true, false));
    assert_eq!(seen(&held[1]), ("1", 2, true, false));
}

#[tokio::test]
async fn what_is_given_back_is_settled_and_stays_until_the_next_owner() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..2).await;
    let one = orders.worker().await;
    let (owned, mut taker) = one.take(0).await;
    let mut held = taker.exactly(2).await;
    let (receipt, other) = (held[0].receipt, held[1].receipt);
    give_back(&taker, vec![held.remove(0)]).await;
    taker.nothing().await;
    let again = taker.settle_one(Settlement::complete(receipt, 1)).await;
    assert_eq!(again.expect_err("settled").error.kind(), ErrorKind::Stale);
    let started = taker.settler.start(&[(receipt, 1), (other, 2)]).await;
    let [refused, noted] = &started[..] else {
        panic!("{started:?}")
    };
    assert_eq!(
        refused.as_ref().map_err(|e| e.kind()),
        Err(ErrorKind::Stale)
    );
    assert!(noted.is_ok(), "{noted:?}");
    // Nothing of it is reported lost: it was nobody's any more.
    one.proxy.reset_all().await;
    assert_eq!(one.lost().await, owned);
    assert_eq!(taker.lost().await, [other]);
}

#[tokio::test]
async fn many_starts_at_once_are_noted_and_settled_ones_forgotten() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..32).await;
    {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let mut held = taker.exactly(32).await;
        let starts = held.iter().map(|delivery| async {
            let noted = taker.settler.start(&[(delivery.receipt, 2)]).await;
            assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        });
        futures_util::future::join_all(starts).await;
        let last = held.pop().expect("the last");
        taker.complete(held).await;
        let noted = taker.settler.start(&[(last.receipt, 3)]).await;
        assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        // The same ids, used again.
        worker.proxy.reset_all().await;
    }
    let worker = orders.worker().await;
    let (_, mut taker) = worker.take(0).await;
    let held = taker.one().await;
    assert_eq!(seen(&held), ("31", 4, true, false));
    taker.complete(vec![held]).await;
    taker.nothing().await;
}

#[tokio::test]
async fn a_start_that_cannot_be_noted_is_refused() {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::lasting(&broker.url(), 1).await;
    orders.publish(0, 0..1).await;
    {
        let worker = orders.worker().await;
        let (_, mut taker) = worker.take(0).await;
        let held = taker.one().await;
        broker.freeze().await.expect("frozen");
        let refused = taker.settler.start(&[(held.receipt, 2)]).await;
        let refused = refused.into_iter().next().expect("an answer");
        refused.expect_err("nobody has confirmed");
        broker.thaw().await.expect("thawed");
    }
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(0).await;
    let held = taker.one().await;
    // A marker queue that is gone is made again, with the token of the owner.
    let marker = format!("{}.s1.0.marker", orders.topology.queue);
    let delete = ["delete_queue", &marker];
    broker.rabbitmqctl(&delete).await.expect("deleted");
    let noted = taker.settler.start(&[(held.receipt, held.attempt)]).await;
    assert!(noted.iter().all(Result::is_ok), "{noted:?}");
    worker.hand_over(owned, taker, vec![held]).await;
    let (next, mut taker) = worker.take(0).await;
    assert!(next.token > owned.token);
    let held = taker.one().await;
    broker.kill().await.expect("dead");
    let refused = taker.settler.start(&[(held.receipt, 9)]).await;
    let refused = refused.into_iter().next().expect("an answer");
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_dead_letter_of_a_session_leaves_its_place_and_a_retry_is_refused() {
    let orders = Orders::new(2).await;
    orders.publish(1, 0..2).await;
    let worker = orders.worker().await;
    let (_, mut taker) = worker.take(1).await;
    let mut held = taker.exactly(2).await;
    let second = held.pop().expect("two");
    let first = held.pop().expect("one");
    let after = std::time::Duration::ZERO;
    let retry = Settlement::new(first.receipt, 1, Verdict::Retry { after }, first.envelope);
    let refused = taker.settle_one(retry).await.expect_err("not in a session");
    assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
    let mut settlement = *refused.settlement.expect("back");
    let id = settlement
        .envelope
        .as_ref()
        .expect("an envelope")
        .id
        .clone();
    settlement.verdict = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: "no".to_owned(),
    };
    let settled = taker.settle_one(settlement).await;
    settled.map_err(|u| u.error).expect("a dead letter");
    taker.complete(vec![second]).await;
    let admin = worker.transport.admin();
    let dead = admin
        .dead_letters(&orders.topology.queue, None, 10)
        .await
        .expect("a list");
    let [letter] = &dead[..] else {
        panic!("{dead:?}")
    };
    assert_eq!((&letter.envelope.id, letter.attempts), (&id, 1));
    assert_eq!(
        admin
            .stats(&orders.topology.queue)
            .await
            .expect("figures")
            .dead,
        1
    );
}

#[tokio::test]
async fn a_dead_letter_is_sent_back_to_the_partition_of_its_key() {
    let orders = Orders::new(4).await;
    let key = RandomIds.text();
    let index = orders.index_of(&key);
    let mut envelope = message("keyed");
    envelope.key = Some(key);
    orders
        .send(vec![orders.to_partition(index, envelope)])
        .await;
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(index).await;
    let held = taker.one().await;
    let verdict = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    taker.settle(held, verdict).await;
    let queue = &orders.topology.queue;
    // Also by a client that has never heard of the queue.
    let operator = crate::rig::connect(&orders.url).await;
    let dead = operator.admin().dead_letters(queue, None, 10).await;
    let ids: Vec<_> = dead.expect("a list").into_iter().map(|d| d.id).collect();
    let answers = operator.admin().redrive(queue, &ids).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let back = taker.one().await;
    assert_eq!((body(&back), back.attempt), ("keyed", 1));
    worker.hand_over(owned, taker, vec![back]).await;
    let figures = operator.admin().stats(queue).await.expect("figures");
    assert_eq!((figures.ready, figures.dead), (1, 0));
}
