use std::time::{Duration, Instant};

use longshore_core::{Claim, ErrorKind};
use longshore_testing::{
    brokers::{Broker, BrokerKind},
    proxy::{Flow, Proxy},
};

use super::worker::{Orders, Worker};
use crate::rig::{PATIENCE, SILENCE, body, connect, message};

#[tokio::test]
async fn a_claim_belongs_to_one_worker_until_it_is_released() {
    let orders = Orders::new(4).await;
    let (one, two) = (orders.worker().await, orders.worker().await);
    for claim in [Claim::Partition(3), Claim::Seat(0), Claim::Forwarder] {
        let owned = one.acquire(claim).await.expect("it is free");
        for _ in 0..3 {
            assert_eq!(two.acquire(claim).await, None);
            // Nor by the same client.
            assert_eq!(one.acquire(claim).await, None);
        }
        one.membership.release(owned).await.expect("released");
        let again = one.membership.release(owned).await.expect_err("released");
        assert_eq!(again.kind(), ErrorKind::Stale);
        let taken = two.own(claim).await;
        assert_eq!(one.acquire(claim).await, None);
        two.membership.release(taken).await.expect("released");
    }
    // Asking for what others have broke nothing.
    let (_, mut taker) = one.take(3).await;
    orders.publish(3, [7]).await;
    assert_eq!(body(&taker.one().await), "7");
}

#[tokio::test]
async fn two_workers_of_one_client_never_own_the_same() {
    let orders = Orders::new(2).await;
    let one = orders.worker().await;
    let proxy = Proxy::start("127.0.0.1:1").await.expect("a proxy");
    let two = Worker::join(proxy, one.transport.clone(), &orders.topology).await;
    assert_eq!(one.live().await, 2);
    let owned = one.own(Claim::Partition(0)).await;
    assert_eq!(two.acquire(Claim::Partition(0)).await, None);
    one.membership.release(owned).await.expect("released");
    let owned = two.own(Claim::Partition(0)).await;
    assert_eq!(one.acquire(Claim::Partition(0)).await, None);
    drop(two);
    let next = one.own(Claim::Partition(0)).await;
    assert!(next.token > owned.token);
    one.until_live(1).await;
}

#[tokio::test]
async fn many_that_race_for_a_partition_make_one_owner() {
    let orders = Orders::new(1).await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(orders.worker().await);
    }
    let mut last = 0;
    for _ in 0..10 {
        let tries = workers
            .iter()
            .map(|worker| worker.acquire(Claim::Partition(0)));
        let got = futures_util::future::join_all(tries).await;
        let owners: Vec<_> = got
            .iter()
            .zip(&workers)
            .filter_map(|(got, w)| Some((got.as_ref()?, w)))
            .collect();
        let [(ownership, worker)] = owners[..] else {
            panic!("{} owners", owners.len());
        };
        assert!(ownership.token > last, "{} after {last}", ownership.token);
        last = ownership.token;
        worker
            .membership
            .release(*ownership)
            .await
            .expect("released");
    }
}

#[tokio::test]
async fn tokens_grow_over_deaths_releases_and_broker_restarts() {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::lasting(&broker.url(), 2).await;
    let mut last = 0;
    for round in 0..8 {
        let worker = orders.worker().await;
        let ownership = worker.own(Claim::Partition(1)).await;
        assert!(ownership.token > last, "{} after {last}", ownership.token);
        last = ownership.token;
        match round % 4 {
            0 => worker
                .membership
                .release(ownership)
                .await
                .expect("released"),
            1 => drop(worker),
            2 => drop(worker.proxy.reset_all().await),
            _ => {
                broker.kill().await.expect("dead");
                broker.start_again().await.expect("alive");
            }
        }
    }
    let other = orders.worker().await.own(Claim::Partition(0)).await;
    assert!(other.token > 0);
}

#[tokio::test]
async fn a_dead_owner_is_told_and_its_partition_is_free_at_once() {
    let orders = Orders::new(2).await;
    let (one, two) = (orders.worker().await, orders.worker().await);
    orders.publish(0, [0, 1]).await;
    let (owned, mut taker) = one.take(0).await;
    let seat = one.own(Claim::Seat(1)).await;
    let held = taker.exactly(2).await;
    assert_eq!(two.acquire(Claim::Partition(0)).await, None);
    let from = Instant::now();
    one.proxy.reset_all().await;
    let (next, mut inherited) = two.take(0).await;
    assert!(
        from.elapsed() < Duration::from_secs(2),
        "{:?}",
        from.elapsed()
    );
    assert!(next.token > owned.token);
    assert_eq!(body(&inherited.one().await), "0");
    let mut lost = [one.lost().await, one.lost().await];
    lost.sort_by_key(|ownership| ownership.claim);
    assert_eq!(lost, [owned, seat]);
    let mut receipts = taker.lost().await;
    receipts.sort();
    assert_eq!(receipts, held.iter().map(|d| d.receipt).collect::<Vec<_>>());
    assert!(taker.some(1).await.is_empty(), "the source has ended");
    for delivery in &held {
        let stale = longshore_core::Settlement::complete(delivery.receipt, 1);
        let refused = taker.settle_one(stale).await.expect_err("a lost partition");
        assert_eq!(refused.error.kind(), ErrorKind::Stale);
        let started = taker.settler.start(&[(delivery.receipt, 2)]).await;
        let refused = started.into_iter().next().expect("an answer");
        assert_eq!(refused.expect_err("lost").kind(), ErrorKind::Stale);
    }
    let stale = one.transport.subscribe(one.subscription(owned)).await;
    assert_eq!(stale.err().map(|e| e.kind()), Some(ErrorKind::Stale));
    // The same process takes part again.
    let (_, mut again) = one.take(1).await;
    orders.publish(1, [9]).await;
    assert_eq!(body(&again.one().await), "9");
}

#[tokio::test]
async fn a_half_open_owner_gives_up_before_the_broker_frees_its_partition() {
    let orders = Orders::new(1).await;
    let one = orders.worker_with("?heartbeat=1").await;
    let two = orders.worker().await;
    let (owned, _taker) = one.take(0).await;
    one.proxy.set_both(Flow::Freeze);
    let from = Instant::now();
    assert_eq!(one.lost().await, owned);
    let given_up = from.elapsed();
    two.own(Claim::Partition(0)).await;
    let freed = from.elapsed();
    eprintln!("given up after {given_up:?}, free after {freed:?}");
    assert!(given_up < freed);
}

#[tokio::test]
async fn live_and_free_follow_joins_deaths_and_reconnects() {
    let orders = Orders::new(4).await;
    let one = orders.worker().await;
    assert_eq!(one.live().await, 1);
    one.until_free(&[0, 1, 2, 3]).await;
    let two = orders.worker().await;
    assert_eq!((one.live().await, two.live().await), (2, 2));
    let (_, _first) = one.take(2).await;
    let (second, _taker) = two.take(0).await;
    one.until_free(&[1, 3]).await;
    two.until_free(&[1, 3]).await;
    let from = Instant::now();
    two.proxy.reset_all().await;
    one.until_free(&[0, 1, 3]).await;
    assert!(
        from.elapsed() < Duration::from_secs(2),
        "{:?}",
        from.elapsed()
    );
    assert_eq!(two.lost().await, second);
    // It comes back by itself.
    one.until_live(2).await;
    two.until_live(2).await;
    drop(two);
    one.until_live(1).await;
}

#[tokio::test]
async fn a_channel_that_ends_alone_ends_its_ownership_and_no_other() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::on(&broker.url(), 2).await;
    let worker = orders.worker().await;
    orders.publish(0, [0]).await;
    orders.publish(1, [1]).await;
    let (lost, mut taker) = worker.take(0).await;
    let (_, mut kept) = worker.take(1).await;
    let held = taker.one().await;
    let safe = kept.one().await;
    let name = format!("{}.s2.0", orders.topology.queue);
    let delete = ["delete_queue", &name];
    broker.rabbitmqctl(&delete).await.expect("deleted");
    assert_eq!(worker.lost().await, lost);
    assert_eq!(taker.lost().await, [held.receipt]);
    assert!(taker.some(1).await.is_empty());
    // The queue is made again for its next owner.
    let (next, mut taker) = worker.take(0).await;
    assert!(next.token > lost.token);
    orders.publish(0, [2]).await;
    assert_eq!(body(&taker.one().await), "2");
    kept.complete(vec![safe]).await;
}

#[tokio::test]
async fn a_partition_is_consumed_by_its_owner_alone() {
    let orders = Orders::new(2).await;
    let worker = orders.worker().await;
    let owned = worker.own(Claim::Partition(0)).await;
    let good = worker.subscription(owned);
    let mut none = good.clone();
    none.ownership = None;
    let mut other = good.clone();
    other.part = orders.partition(1);
    let mut plain = good.clone();
    plain.part = longshore_core::Part::Lane(0);
    for wrong in [none, other, plain] {
        let refused = worker.transport.subscribe(wrong).await.err();
        assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::Invalid));
    }
    let stranger = connect(&orders.url).await;
    let refused = stranger.subscribe(good.clone()).await.err();
    assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::Stale));
    let mut taker = worker.consume(owned).await;
    let refused = taker.source.set_prefetch(1).expect_err("fixed");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn two_hundred_and_fifty_six_partitions_are_declared_quickly_and_found_free() {
    let from = Instant::now();
    let orders = Orders::new(256).await;
    let made = from.elapsed();
    let from = Instant::now();
    let worker = orders.worker().await;
    let joined = from.elapsed();
    let from = Instant::now();
    let free = worker.membership.free().await.expect("an answer");
    let looked = from.elapsed();
    eprintln!("made in {made:?}, joined in {joined:?}, looked in {looked:?}");
    assert_eq!(free.len(), 256);
    assert!(made < PATIENCE * 3 && joined < PATIENCE && looked < PATIENCE);
    let from = Instant::now();
    let (_, mut taker) = worker.take(255).await;
    eprintln!("one taken in {:?}", from.elapsed());
    let from = Instant::now();
    let all = (0..256).map(|index| orders.to_partition(index, message("1")));
    orders.send(all.collect()).await;
    eprintln!("published to all in {:?}", from.elapsed());
    assert_eq!(body(&taker.one().await), "1");
}

/// A lock that is somebody else's costs lapin a channel of the connection that asked, for good. A worker
/// asks for seats every second, and what it owns is on that connection.
#[tokio::test]
async fn asking_for_a_seat_that_is_taken_again_and_again_costs_nothing() {
    let orders = Orders::new(2).await;
    let (one, two) = (orders.worker().await, orders.worker().await);
    one.own(Claim::Seat(0)).await;
    let owned = two.own(Claim::Partition(0)).await;
    for _ in 0..2_200 {
        assert_eq!(two.acquire(Claim::Seat(0)).await, None);
    }
    let lost = std::future::poll_fn(|cx| two.membership.poll_lost(cx));
    let lost = tokio::time::timeout(SILENCE, lost).await;
    assert!(lost.is_err(), "{lost:?}");
    two.membership.release(owned).await.expect("still owned");
    two.own(Claim::Partition(1)).await;
}
