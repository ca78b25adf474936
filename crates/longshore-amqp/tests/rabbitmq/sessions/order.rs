//! What is published in order arrives in order, whatever becomes of its owners.

use std::collections::BTreeSet;

use longshore_core::{Delivery, Ownership};
use longshore_testing::brokers::{Broker, BrokerKind};
use tokio::time::timeout;

use super::worker::{Orders, Worker};
use crate::rig::{SILENCE, Taker, body, message};

/// The same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).expect("small")
    }
}

fn number(delivery: &Delivery) -> u32 {
    body(delivery).parse().expect("a number")
}

/// What must arrive of one partition, and in which order.
#[derive(Default)]
struct Chart {
    published: u32,
    left: BTreeSet<u32>,
    /// Completed, which is written and not answered: what was cut off comes again, in its place.
    unsure: BTreeSet<u32>,
    /// What the owner of now has seen.
    seen: BTreeSet<u32>,
    done: BTreeSet<u32>,
}

impl Chart {
    async fn fill(&mut self, orders: &Orders) {
        while self.left.len() < 60 {
            let some = self.published..self.published + 20;
            orders.publish(0, some.clone()).await;
            self.published = some.end;
            self.left.extend(some);
        }
    }

    fn next_owner(&mut self) {
        self.unsure.append(&mut self.done);
        self.seen.clear();
    }

    fn arrive(&mut self, n: u32) {
        if !self.left.contains(&n) {
            assert!(self.unsure.remove(&n), "{n} was done long ago");
            self.left.insert(n);
        }
        self.unsure.retain(|unsure| *unsure > n);
        let before = self.left.range(..n).find(|m| !self.seen.contains(m));
        assert_eq!(before, None, "comes before {n}");
        assert!(
            self.seen.last() < Some(&n),
            "{n} after {:?}",
            self.seen.last()
        );
        self.seen.insert(n);
    }

    fn complete(&mut self, n: u32) {
        self.left.remove(&n);
        self.done.insert(n);
    }

    fn has_more(&self) -> bool {
        self.left.last() > self.seen.last()
    }
}

/// An owner that works for a while: takes what comes, completes some of it in any order, and notes
/// starts of the rest. Answers what it still holds.
async fn work(taker: &mut Taker, dice: &mut Dice, chart: &mut Chart) -> Vec<Delivery> {
    let mut held: Vec<Delivery> = Vec::new();
    for _ in 0..1 + dice.roll(4) {
        if held.len() >= 32 || !chart.has_more() {
            break;
        }
        for delivery in taker.some(1 + dice.roll(32)).await {
            chart.arrive(number(&delivery));
            held.push(delivery);
        }
        let mut done = Vec::new();
        for _ in 0..dice.roll(1 + held.len()) {
            let one = held.remove(dice.roll(held.len()));
            chart.complete(number(&one));
            done.push(one);
        }
        taker.complete(done).await;
        if let Some(one) = held.first() {
            let noted = taker.settler.start(&[(one.receipt, one.attempt + 1)]).await;
            assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        }
    }
    held
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// Its connections are cut.
    Cut,
    /// Its source is dropped with everything in it, and then the rest.
    Dropped,
    /// The rest first.
    Left,
    /// A clean hand-over of everything unstarted and waiting.
    HandedOver,
}

impl End {
    async fn come(self, worker: Worker, owned: Ownership, taker: Taker, held: Vec<Delivery>) {
        match self {
            Self::Cut => drop(worker.proxy.reset_all().await),
            Self::Dropped => drop((taker, worker)),
            Self::Left => drop((worker, taker)),
            Self::HandedOver => worker.hand_over(owned, taker, held).await,
        }
    }
}

async fn many_owners(seed: u64, runs: u32, ends: &[End]) {
    let orders = Orders::new(1).await;
    let (mut dice, mut chart) = (Dice(seed), Chart::default());
    for _ in 0..runs {
        chart.fill(&orders).await;
        chart.next_owner();
        let worker = orders.worker().await;
        let (owned, mut taker) = worker.take(0).await;
        let held = work(&mut taker, &mut dice, &mut chart).await;
        let end = ends[dice.roll(ends.len())];
        end.come(worker, owned, taker, held).await;
    }
    chart.next_owner();
    let worker = orders.worker().await;
    let (_, mut taker) = worker.take(0).await;
    while !chart.left.is_empty() {
        for delivery in taker.some(64).await {
            chart.arrive(number(&delivery));
            chart.complete(number(&delivery));
            taker.complete(vec![delivery]).await;
        }
    }
    while !chart.unsure.is_empty()
        && let Ok(some) = timeout(SILENCE, taker.some(64)).await
    {
        for delivery in some {
            chart.arrive(number(&delivery));
            taker.complete(vec![delivery]).await;
        }
    }
    taker.nothing().await;
}

#[tokio::test]
async fn order_survives_cut_connections() {
    many_owners(0x5eed_0001, 25, &[End::Cut]).await;
}

#[tokio::test]
async fn order_survives_dropped_sources_and_workers() {
    many_owners(0x5eed_0002, 25, &[End::Dropped, End::Left]).await;
}

#[tokio::test]
async fn order_survives_clean_hand_overs_of_unstarted_and_waiting_messages() {
    many_owners(0x5eed_0003, 25, &[End::HandedOver]).await;
}

#[tokio::test]
async fn order_survives_ends_of_every_kind_in_any_sequence() {
    let ends = [End::Cut, End::Dropped, End::Left, End::HandedOver];
    for seed in 0x5eed_0010..0x5eed_0014 {
        many_owners(seed, 15, &ends).await;
    }
}

#[tokio::test]
async fn order_survives_a_killed_broker() {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::lasting(&broker.url(), 1).await;
    let mut chart = Chart::default();
    chart.fill(&orders).await;
    let worker = orders.worker().await;
    let (owned, mut taker) = worker.take(0).await;
    let mut held = taker.exactly(32).await;
    held.iter().for_each(|d| chart.arrive(number(d)));
    let done = held.split_off(16);
    done.iter().for_each(|d| chart.complete(number(d)));
    taker.complete(done).await;
    let more = taker.exactly(16).await;
    more.iter().for_each(|d| chart.arrive(number(d)));
    broker.kill().await.expect("dead");
    assert_eq!(worker.lost().await, owned);
    broker.start_again().await.expect("alive");
    chart.next_owner();
    let (next, mut taker) = worker.take(0).await;
    assert!(next.token > owned.token);
    while !chart.left.is_empty() {
        let delivery = taker.one().await;
        let n = number(&delivery);
        assert_eq!(delivery.suspect, n < 48, "{n}");
        chart.arrive(n);
        chart.complete(n);
        taker.complete(vec![delivery]).await;
    }
}

/// Right after a restart most of them have no leader yet: whoever consumes them then must not get what
/// is new before what was held.
#[tokio::test]
async fn order_survives_being_taken_over_right_after_a_restart() {
    const COUNT: u16 = 32;
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let orders = Orders::lasting(&broker.url(), COUNT).await;
    let worker = orders.worker().await;
    let mut takers = Vec::new();
    for index in 0..COUNT {
        orders.publish(index, 0..40).await;
        let (_, mut taker) = worker.take(index).await;
        taker.exactly(32).await;
        takers.push(taker);
    }
    for _ in 0..3 {
        broker.kill().await.expect("dead");
        for _ in 0..COUNT {
            worker.lost().await;
        }
        broker.start_again().await.expect("alive");
        let worker = &worker;
        let taken = (0..COUNT).map(|index| async move {
            let (_, mut taker) = worker.take(index).await;
            let held = taker.exactly(32).await;
            let numbers: Vec<_> = held.iter().map(number).collect();
            assert_eq!(numbers, (0..32).collect::<Vec<_>>());
            taker
        });
        takers = futures_util::future::join_all(taken).await;
    }
    drop(takers);
}

#[tokio::test]
async fn what_one_client_publishes_to_one_queue_stays_in_order() {
    let orders = Orders::new(1).await;
    let worker = orders.worker().await;
    let (_, mut taker) = worker.take(0).await;
    let mut expected = Vec::new();
    // Batches and single messages, of which some have an id twice or thrice.
    for round in 0..40_u32 {
        let numbers = round * 10..round * 10 + 10;
        let to_partition = |n: u32| orders.to_partition(0, message(&n.to_string()));
        let mut batch: Vec<_> = numbers.clone().map(to_partition).collect();
        batch.insert(1, batch[0].clone());
        batch.insert(4, batch[0].clone());
        batch.insert(5, batch[2].clone());
        expected.extend(batch.iter().map(|o| o.envelope.body.clone()));
        match round % 2 {
            0 => orders.send(batch).await,
            _ => {
                for one in batch {
                    orders.send(vec![one]).await;
                }
            }
        }
    }
    let mut found = Vec::new();
    while found.len() < expected.len() {
        let some = taker.some(64).await;
        found.extend(some.iter().map(|d| d.envelope.body.clone()));
        taker.complete(some).await;
    }
    assert_eq!(found, expected);
}
