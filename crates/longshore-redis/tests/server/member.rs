//! A live worker of a queue with sessions.

use std::{future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Delivery, Destination, Membership, Outgoing, Ownership, Part, Result,
    Subscription, Topology, Transport, partition_of,
};

use super::{Consumer, message, queue, subscription};

pub fn sessions(name: &str, partitions: u16) -> Arc<Topology> {
    let mut topology = Topology::new(queue(name));
    topology.partitions = partitions;
    Arc::new(topology)
}

/// A message to the partition of its key.
pub fn keyed(topology: &Topology, key: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let mut message = message(&topology.queue, body);
    let of = topology.partitions;
    let index = partition_of(&key.into(), of);
    message.to = Destination::Queue(topology.queue.clone(), Part::Partition { index, of });
    message.envelope.key = Some(key.into());
    message
}

pub async fn publish_keyed(
    transport: &Arc<dyn Transport>,
    topology: &Topology,
    key: &str,
    bodies: impl IntoIterator<Item = String>,
) {
    let bodies = bodies.into_iter();
    let batch = bodies.map(|body| keyed(topology, key, body)).collect();
    for answer in transport.publish(batch).await {
        answer.unwrap();
    }
}

pub struct Member {
    pub membership: Box<dyn Membership>,
    pub transport: Arc<dyn Transport>,
    pub topology: Arc<Topology>,
    pub lock: Duration,
}

impl Member {
    pub async fn join(
        transport: &Arc<dyn Transport>,
        topology: &Arc<Topology>,
        lock: Duration,
    ) -> Self {
        Self {
            membership: transport
                .join(topology, Declare::Create, longshore_core::defaults::LOCK)
                .await
                .unwrap(),
            transport: Arc::clone(transport),
            topology: Arc::clone(topology),
            lock,
        }
    }

    pub async fn try_own(&self, claim: Claim) -> Option<Ownership> {
        self.membership.acquire(claim).await.unwrap()
    }

    /// A claim that is free now or soon.
    pub async fn own(&self, claim: Claim) -> Ownership {
        for _ in 0..600 {
            if let Some(ownership) = self.try_own(claim).await {
                return ownership;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{claim:?} never got free");
    }

    pub fn subscription(&self, ownership: Ownership) -> Subscription {
        let mut subscription = subscription(&self.topology.queue, 32, self.lock);
        subscription.topology = Arc::clone(&self.topology);
        if let Claim::Partition(index) = ownership.claim {
            let of = self.topology.partitions;
            subscription.part = Part::Partition { index, of };
        }
        subscription.ownership = Some(ownership);
        subscription
    }

    pub async fn consume(&self, ownership: Ownership) -> Consumer {
        Consumer::new(&self.transport, self.subscription(ownership)).await
    }

    pub async fn release(&self, ownership: Ownership) -> Result<()> {
        self.membership.release(ownership).await
    }

    pub async fn lost_within(&self, within: Duration) -> Option<Ownership> {
        let lost = poll_fn(|cx| self.membership.poll_lost(cx));
        tokio::time::timeout(within, lost).await.ok()
    }
}

pub const P0: Claim = Claim::Partition(0);

/// A process that owns and consumes one partition. Dropping it is its death.
pub struct Owner {
    pub consumer: Consumer,
    pub ownership: Ownership,
    pub member: Member,
}

impl Owner {
    /// A new process that gets the first partition, once it is free.
    pub async fn of(
        transport: &Arc<dyn Transport>,
        topology: &Arc<Topology>,
        lock: Duration,
    ) -> Self {
        let member = Member::join(transport, topology, lock).await;
        let ownership = member.own(P0).await;
        member.consuming(ownership).await
    }

    pub async fn starts(&self, delivery: &Delivery, attempt: u32) -> Result<()> {
        let starts = [(delivery.receipt, attempt)];
        let mut answers = self.consumer.settler.start(&starts).await;
        answers.pop().unwrap()
    }

    /// Drops the source, then gives the claim back.
    pub async fn release(self) -> Member {
        drop(self.consumer);
        self.member.release(self.ownership).await.unwrap();
        self.member
    }
}

impl Member {
    pub async fn consuming(self, ownership: Ownership) -> Owner {
        Owner {
            consumer: self.consume(ownership).await,
            ownership,
            member: self,
        }
    }
}
