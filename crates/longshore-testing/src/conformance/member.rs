//! Live workers of a queue with sessions as cases use them: each stands for a process.

use std::{future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Delivery, Membership, Ownership, Part, Subscription, Topology, Transport,
    Verdict,
};
use tokio::time::Instant;

use super::{
    consumer::{Consumer, settlement, subscription},
    message::partition,
    must::Must,
    stage::{PATIENCE, Stage},
};

/// How long a case waits for the claims of the dead, beside the lock.
const ROOM: Duration = Duration::from_secs(15);

/// A live worker. Dropping it is the death of its process.
pub(crate) struct Member {
    membership: Box<dyn Membership>,
    pub(crate) transport: Arc<dyn Transport>,
    topology: Arc<Topology>,
    /// How long claims outlive their owner at most.
    pub(crate) succession: Duration,
}

impl Member {
    /// Joins over a transport of its own.
    pub(crate) async fn of(stage: &Stage, topology: &Topology) -> Self {
        Self::on(stage, stage.open().await, topology).await
    }

    /// Joins over this transport.
    pub(crate) async fn on(
        stage: &Stage,
        transport: Arc<dyn Transport>,
        topology: &Topology,
    ) -> Self {
        let topology = Arc::new(topology.clone());
        let joining = transport.join(&topology, Declare::Create, stage.lock());
        let joined = joining.await;
        Self {
            membership: joined.must("joining the live workers"),
            transport,
            topology,
            succession: stage.lock() + ROOM,
        }
    }

    /// How many workers are alive.
    pub(crate) async fn live(&self) -> usize {
        self.membership.live().await.must("counting the living")
    }

    /// Waits until so many workers are alive.
    pub(crate) async fn until_live(&self, count: usize) {
        let from = Instant::now();
        while self.live().await != count {
            let live = self.live().await;
            assert!(from.elapsed() < self.succession, "{live} live, not {count}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until exactly these partitions are free.
    pub(crate) async fn until_free(&self, wanted: &[u16]) {
        let from = Instant::now();
        loop {
            let mut free = self.membership.free().await.must("asking what is free");
            free.sort_unstable();
            if free == wanted {
                return;
            }
            assert!(
                from.elapsed() < self.succession,
                "{free:?} free, not {wanted:?}"
            );
            // The contract allows one question a second.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A claim, where nobody has it.
    pub(crate) async fn acquire(&self, claim: Claim) -> Option<Ownership> {
        let answer = self.membership.acquire(claim).await;
        let ownership = answer.must(format!("acquiring {claim:?}"))?;
        assert_eq!(ownership.claim, claim, "what was asked for is owned");
        Some(ownership)
    }

    /// A claim that has to be free by now, or soon.
    pub(crate) async fn own(&self, claim: Claim) -> Ownership {
        let from = Instant::now();
        loop {
            if let Some(ownership) = self.acquire(claim).await {
                return ownership;
            }
            assert!(
                from.elapsed() < self.succession,
                "{claim:?} does not get free"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gives a claim back.
    pub(crate) async fn release(&self, ownership: Ownership) {
        let released = self.membership.release(ownership).await;
        released.must(format!("releasing {ownership:?}"));
    }

    /// An ownership that was lost, if one is within this time.
    pub(crate) async fn lost(&self, within: Duration) -> Option<Ownership> {
        let lost = poll_fn(|cx| self.membership.poll_lost(cx));
        tokio::time::timeout(within, lost).await.ok()
    }

    /// Consumes what it owns.
    pub(crate) async fn consume(&self, stage: &Stage, ownership: Ownership) -> Consumer {
        Consumer::on(&*self.transport, self.subscription(stage, ownership)).await
    }

    /// A subscription to what it owns.
    pub(crate) fn subscription(&self, stage: &Stage, ownership: Ownership) -> Subscription {
        let part = match ownership.claim {
            Claim::Partition(index) => partition(&self.topology, index),
            Claim::Seat(_) | Claim::Forwarder => Part::Lane(0),
        };
        Subscription {
            part,
            ownership: Some(ownership),
            prefetch: self.topology.partition_prefetch,
            ..subscription(stage, &self.topology)
        }
    }
}

/// A process that owns and consumes one partition. Dropping it is its death.
pub(crate) struct Owner {
    // Before the membership: a dead process stops consuming no later than owning.
    pub(crate) consumer: Consumer,
    pub(crate) ownership: Ownership,
    pub(crate) member: Member,
}

impl Owner {
    /// A new process that gets this partition.
    pub(crate) async fn of(stage: &Stage, topology: &Topology, index: u16) -> Self {
        let member = Member::of(stage, topology).await;
        Self::by(stage, member, Claim::Partition(index)).await
    }

    /// This process, once it has this claim.
    pub(crate) async fn by(stage: &Stage, member: Member, claim: Claim) -> Self {
        let ownership = member.own(claim).await;
        let consumer = member.consume(stage, ownership).await;
        Self {
            consumer,
            ownership,
            member,
        }
    }

    /// Gives the partition up as a worker does: stops, gives everything back, drops the source,
    /// releases the claim. Each of `held` has the number its next start will have.
    pub(crate) async fn hand_over(mut self, held: Vec<Delivery>) -> Member {
        self.consumer.source.stop();
        // The last first: their places do not follow from the order they are given back in.
        self.give_back(held.into_iter().rev()).await;
        loop {
            let left = self.consumer.batch(64, PATIENCE).await;
            let left = left.must("the end of a stopped source").must("receiving");
            if left.is_empty() {
                break;
            }
            self.give_back(left.into_iter().rev()).await;
        }
        drop(self.consumer);
        self.member.release(self.ownership).await;
        self.member
    }

    async fn give_back(&self, deliveries: impl Iterator<Item = Delivery>) {
        let after = Duration::ZERO;
        let batch = deliveries.map(|delivery| settlement(delivery, Verdict::Release { after }));
        for answer in self.consumer.settler.settle(batch.collect()).await {
            answer.must("giving back");
        }
    }
}
