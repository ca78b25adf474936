//! A worker of a queue with sessions, on connections of its own that can be cut.

use std::{future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Delivery, Destination, Envelope, Limits, Membership, Outgoing, Ownership, Part,
    Published, Settlement, Subscription, Topology, Transport, Verdict, partition_of,
};
use longshore_testing::{brokers, proxy::Proxy};
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{PATIENCE, Taker, connect, message, unique};

/// A queue with sessions.
pub(super) struct Orders {
    pub(super) url: String,
    pub(super) topology: Topology,
    pub(super) publisher: Arc<dyn Transport>,
}

impl Orders {
    pub(super) async fn new(partitions: u16) -> Self {
        Self::on(&brokers::amqp_url().expect("a broker"), partitions).await
    }

    pub(super) async fn on(url: &str, partitions: u16) -> Self {
        let mut topology = Topology::new(unique());
        topology.partitions = partitions;
        let publisher = connect(url).await;
        let declared = publisher.declare(&topology, Declare::Create).await;
        declared.expect("a declared queue");
        Self {
            url: url.to_owned(),
            topology,
            publisher,
        }
    }

    /// On a broker that is going to be killed. RabbitMQ notes the name of a new quorum queue some time
    /// after it has confirmed messages there: killed before, it finds an empty queue without a leader,
    /// for ever (seen on 3.10.8 within the first second).
    pub(super) async fn lasting(url: &str, partitions: u16) -> Self {
        let orders = Self::on(url, partitions).await;
        sleep(Duration::from_secs(4)).await;
        orders
    }

    pub(super) fn partition(&self, index: u16) -> Part {
        let of = self.topology.partitions;
        Part::Partition { index, of }
    }

    pub(super) fn to_partition(&self, index: u16, envelope: Envelope) -> Outgoing {
        Outgoing {
            to: Destination::Queue(self.topology.queue.clone(), self.partition(index)),
            envelope,
            delay: Duration::ZERO,
            dedup_window: None,
        }
    }

    /// Publishes these into one partition.
    pub(super) async fn publish(&self, index: u16, bodies: impl IntoIterator<Item = u32>) {
        let batch = bodies
            .into_iter()
            .map(|n| self.to_partition(index, message(&n.to_string())));
        self.send(batch.collect()).await;
    }

    pub(super) async fn send(&self, batch: Vec<Outgoing>) {
        for answer in self.publisher.publish(batch).await {
            assert_eq!(answer.expect("a confirm"), Published::Accepted);
        }
    }

    /// Where a message with this key goes.
    pub(super) fn index_of(&self, key: &str) -> u16 {
        partition_of(&key.into(), self.topology.partitions)
    }

    pub(super) async fn worker(&self) -> Worker {
        self.worker_with("").await
    }

    /// A worker whose address has this query.
    pub(super) async fn worker_with(&self, query: &str) -> Worker {
        let upstream = self.url.rsplit('@').next().expect("a host").to_owned();
        let proxy = Proxy::start(upstream).await.expect("a proxy");
        let transport = connect(&(proxy.url(&self.url) + query)).await;
        Worker::join(proxy, transport, &self.topology).await
    }
}

/// A process with one membership.
pub(super) struct Worker {
    pub(super) membership: Box<dyn Membership>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) proxy: Proxy,
    topology: Arc<Topology>,
}

impl Worker {
    pub(super) async fn join(
        proxy: Proxy,
        transport: Arc<dyn Transport>,
        topology: &Topology,
    ) -> Self {
        let topology = Arc::new(topology.clone());
        let joined = transport
            .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
            .await;
        Self {
            membership: joined.expect("a membership"),
            transport,
            proxy,
            topology,
        }
    }

    pub(super) async fn acquire(&self, claim: Claim) -> Option<Ownership> {
        let acquired = timeout(PATIENCE, self.membership.acquire(claim)).await;
        acquired.expect("an answer in time").expect("an answer")
    }

    /// A claim that is free, or soon will be.
    pub(super) async fn own(&self, claim: Claim) -> Ownership {
        let from = Instant::now();
        loop {
            match self.membership.acquire(claim).await {
                Ok(Some(ownership)) => return ownership,
                Err(error) if !error.is_transient() => panic!("{error}"),
                Ok(None) | Err(_) => {}
            }
            assert!(from.elapsed() < PATIENCE, "{claim:?} does not get free");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn subscription(&self, ownership: Ownership) -> Subscription {
        let part = match ownership.claim {
            Claim::Partition(index) => Part::Partition {
                index,
                of: self.topology.partitions,
            },
            Claim::Seat(_) | Claim::Forwarder => Part::Lane(0),
        };
        Subscription {
            topology: self.topology.clone(),
            declare: Declare::Create,
            part,
            ownership: Some(ownership),
            prefetch: self.topology.partition_prefetch,
            lock: Duration::from_secs(30),
            suspect_returns: 2,
            limits: Limits::default(),
        }
    }

    pub(super) async fn consume(&self, ownership: Ownership) -> Taker {
        let subscribed = self.transport.subscribe(self.subscription(ownership)).await;
        let (source, settler) = subscribed.expect("a subscription");
        Taker { source, settler }
    }

    pub(super) async fn take(&self, index: u16) -> (Ownership, Taker) {
        let ownership = self.own(Claim::Partition(index)).await;
        let taker = self.consume(ownership).await;
        (ownership, taker)
    }

    pub(super) async fn lost(&self) -> Ownership {
        let lost = poll_fn(|cx| self.membership.poll_lost(cx));
        timeout(PATIENCE, lost).await.expect("a loss in time")
    }

    /// Gives a partition up as a worker does that finishes what it runs.
    pub(super) async fn hand_over(&self, ownership: Ownership, taker: Taker, held: Vec<Delivery>) {
        let mut taker = taker;
        taker.source.stop();
        give_back(&taker, held).await;
        loop {
            let more = taker.some(64).await;
            if more.is_empty() {
                break;
            }
            give_back(&taker, more).await;
        }
        drop(taker);
        let released = self.membership.release(ownership).await;
        released.expect("released");
    }

    pub(super) async fn live(&self) -> usize {
        self.membership.live().await.expect("a count")
    }

    pub(super) async fn until_live(&self, count: usize) {
        let from = Instant::now();
        loop {
            let live = self.live().await;
            if live == count {
                return;
            }
            assert!(from.elapsed() < PATIENCE, "{live} live, not {count}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn until_free(&self, free: &[u16]) {
        let from = Instant::now();
        loop {
            let found = self.membership.free().await.expect("an answer");
            if found == free {
                return;
            }
            assert!(from.elapsed() < PATIENCE, "{found:?} free, not {free:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Gives back what was not started, the last first.
pub(super) async fn give_back(taker: &Taker, held: Vec<Delivery>) {
    let batch = held.into_iter().rev().map(|delivery| {
        let after = Duration::ZERO;
        Settlement::new(
            delivery.receipt,
            delivery.attempt,
            Verdict::Release { after },
            delivery.envelope,
        )
    });
    for answer in taker.settler.settle(batch.collect()).await {
        answer.map_err(|unsettled| unsettled.error).expect("kept");
    }
}
