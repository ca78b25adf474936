//! Stopping, and the plain queue of a queue with sessions.

use std::time::{Duration, Instant};

use longshore_core::{Claim, Destination, Part, Reason, Verdict};
use longshore_testing::brokers::{Broker, BrokerKind};

use super::worker::{Orders, give_back};
use crate::rig::{Taker, body, message};

#[tokio::test]
async fn after_a_stop_nothing_more_is_handed_out_and_what_was_can_be_settled() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..5).await;
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(0).await;
    let held = taker.exactly(5).await;
    taker.source.stop();
    orders.publish(0, 5..8).await;
    taker.complete(held).await;
    assert!(taker.some(8).await.is_empty());
    worker.hand_over(owned, taker, Vec::new()).await;
    let (_, mut taker) = worker.take(0).await;
    let rest = taker.exactly(3).await;
    let rest: Vec<_> = rest
        .iter()
        .map(|d| (body(d), d.attempt, d.suspect))
        .collect();
    assert_eq!(rest, [("5", 1, false), ("6", 1, false), ("7", 1, false)]);
}

#[tokio::test]
async fn an_owner_may_consume_again_and_goes_on_where_it_was() {
    let orders = Orders::new(1).await;
    orders.publish(0, 0..40).await;
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(0).await;
    for round in 0..3 {
        let mut held = taker.exactly(32).await;
        let first: u32 = body(&held[0]).parse().expect("a number");
        assert_eq!(first, 2 * round);
        // One is done, one waits for its third start, the rest never starts.
        assert_eq!((held[1].attempt, held[1].suspect), (1, false));
        taker.complete(held.drain(..1).collect()).await;
        let noted = taker.settler.start(&[(held[0].receipt, 2)]).await;
        assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        held[0].attempt = 3;
        give_back(&taker, held).await;
        drop(taker);
        taker = worker.consume(owned).await;
        let waiting = taker.one().await;
        assert_eq!((waiting.attempt, waiting.suspect), (3, false));
        taker.complete(vec![waiting]).await;
        drop(taker);
        taker = worker.consume(owned).await;
    }
}

#[tokio::test]
async fn a_released_partition_is_at_work_elsewhere_within_a_second() {
    let orders = Orders::new(8).await;
    let (one, two) = (orders.worker().await, orders.worker().await);
    let mut owned = Vec::new();
    for index in 0..8 {
        orders.publish(index, 0..40).await;
        let (ownership, mut taker) = one.take(index).await;
        let held = taker.exactly(32).await;
        owned.push((ownership, taker, held));
    }
    let from = Instant::now();
    for (ownership, taker, held) in owned {
        one.hand_over(ownership, taker, held).await;
    }
    let handed = from.elapsed();
    for index in 0..8 {
        let (_, mut taker) = two.take(index).await;
        assert_eq!(body(&taker.one().await), "0");
    }
    let taken = from.elapsed();
    eprintln!("eight handed over in {handed:?}, taken by {taken:?}");
    assert!(taken < Duration::from_secs(8), "{taken:?}");
}

#[tokio::test]
async fn a_full_broker_does_not_keep_a_partition_from_being_released() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::on(&broker.url(), 1).await;
    orders.publish(0, 0..3).await;
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(0).await;
    let held = taker.exactly(3).await;
    let low = ["set_vm_memory_high_watermark", "0.00001"];
    broker.rabbitmqctl(&low).await.expect("a watermark");
    let until = Instant::now() + crate::rig::PATIENCE;
    loop {
        let noted = taker.settler.start(&[(held[0].receipt, 2)]).await;
        if noted.iter().all(Result::is_err) {
            break;
        }
        assert!(Instant::now() < until, "the broker is not full");
    }
    give_back(&taker, held).await;
    drop(taker);
    let from = Instant::now();
    worker.membership.release(owned).await.expect("released");
    eprintln!("released in {:?}", from.elapsed());
    assert!(from.elapsed() < Duration::from_secs(1));
    let high = ["set_vm_memory_high_watermark", "0.4"];
    broker.rabbitmqctl(&high).await.expect("a watermark");
    let (_, mut taker) = worker.take(0).await;
    let held = taker.exactly(3).await;
    assert_eq!(body(&held[0]), "0");
    // The last marker could not be written, so what was given back is suspected.
    assert!(held.iter().all(|d| d.suspect), "{held:?}");
    assert_eq!([held[1].attempt, held[2].attempt], [2, 2]);
}

/// Publishes into the plain queue, as a plain client does.
async fn plain(orders: &Orders, numbers: std::ops::Range<u32>) {
    let batch = numbers.map(|n| {
        let mut outgoing = orders.to_partition(0, message(&n.to_string()));
        outgoing.to = Destination::Queue(orders.topology.queue.clone(), Part::Lane(0));
        outgoing
    });
    orders.send(batch.collect()).await;
}

fn bodies(held: &[longshore_core::Delivery]) -> Vec<&str> {
    held.iter().map(body).collect()
}

#[tokio::test]
async fn a_forwarder_takes_the_plain_queue_in_order_over_deaths_and_hand_overs() {
    let orders = Orders::new(2).await;
    plain(&orders, 0..40).await;
    let worker = orders.worker().await;
    let owned = worker.own(Claim::Forwarder).await;
    let mut taker = worker.consume(owned).await;
    let mut held = taker.exactly(32).await;
    assert!(held.iter().all(|d| d.attempt == 1 && !d.suspect));
    assert!(held.iter().all(|d| d.part == Part::Lane(0)));
    taker.complete(vec![held.remove(0)]).await;
    worker.hand_over(owned, taker, held).await;
    // However often it returns: nothing of it was started.
    for _ in 0..4 {
        let worker = orders.worker().await;
        let owned = worker.own(Claim::Forwarder).await;
        let mut taker = worker.consume(owned).await;
        let held = taker.exactly(32).await;
        let expected: Vec<String> = (1..33).map(|n| n.to_string()).collect();
        assert_eq!(bodies(&held), expected);
        assert!(
            held.iter()
                .all(|d| d.attempt == 1 && !d.suspect && !d.alone)
        );
        worker.proxy.reset_all().await;
        assert_eq!(worker.lost().await, owned);
        assert_eq!(taker.lost().await.len(), 32);
        assert!(taker.some(1).await.is_empty());
    }
    let mut taker: Taker = {
        let owned = worker.own(Claim::Forwarder).await;
        worker.consume(owned).await
    };
    let first = taker.one().await;
    let verdict = Verdict::DeadLetter {
        reason: Reason::KeyMissing,
        detail: String::new(),
    };
    taker.settle(first, verdict).await;
    let queue = &orders.topology.queue;
    let dead = worker.transport.admin().dead_letters(queue, None, 2).await;
    let dead = dead.expect("a list");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, Reason::KeyMissing);
}
