//! Joining the workers of a queue with sessions, and consuming what is owned.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use longshore_core::{
    Claim, Declare, Error, ErrorKind, Name, Part, Result, Subscribed, Subscription, Topology,
};

use super::RedisTransport;
use crate::{
    delay::Promoter,
    lease::{Lease, Leased, Leases},
    link::Link,
    membership::{Member, RedisMembership, Surroundings, renew_now},
    partition::{Partition, reader, settler::PartitionSettler, source::PartitionSource},
    site::Place,
};

/// What the transport knows of sessions.
#[derive(Default)]
pub(super) struct Sessions {
    granted: Arc<Leases>,
    members: Mutex<Vec<Weak<Member>>>,
    partitions: Mutex<Vec<Weak<Partition>>>,
    /// Queues and numbers of partitions that were declared: there can be many of them, and each is
    /// subscribed to by itself.
    declared: Mutex<BTreeSet<(Name, u16)>>,
}

impl Sessions {
    /// Ends what is owned and what is consumed.
    pub(super) fn close(&self) {
        let partitions = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for partition in partitions.iter().filter_map(Weak::upgrade) {
            let closed = Error::new(ErrorKind::Closed, "the client was closed");
            partition.table.end(closed);
            partition.table.abandon();
        }
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.iter().filter_map(Weak::upgrade) {
            member.leave();
        }
    }

    pub(super) fn note_declared(&self, topology: &Topology) {
        if topology.partitions > 0 {
            let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
            declared.insert((topology.queue.clone(), topology.partitions));
        }
    }

    fn is_declared(&self, topology: &Topology) -> bool {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.contains(&(topology.queue.clone(), topology.partitions))
    }
}

impl RedisTransport {
    pub(super) async fn join_workers(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        lock: Duration,
    ) -> Result<RedisMembership> {
        if queue.partitions == 0 {
            let text = format!("the queue {} has no sessions to share", queue.queue);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        self.prepare(queue, declare).await?;
        let around = Surroundings {
            site: Arc::clone(&self.site),
            links: Arc::clone(&self.links),
            granted: Arc::clone(&self.sessions.granted),
            alive: Arc::clone(&self.alive),
        };
        let renewal = self.renewal()?;
        let member = Member::join(around, queue, lock).await?;
        {
            let mut members = self
                .sessions
                .members
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            members.retain(|member| member.strong_count() > 0);
            members.push(Arc::downgrade(&member));
        }
        let kept = Arc::clone(&member);
        renewal.spawn(|links| self.tasks.track_future(kept.keep(links)));
        Ok(RedisMembership(member))
    }

    pub(super) async fn consume_owned(&self, subscription: Subscription) -> Result<Subscribed> {
        let (lease, number) = self.lease_of(&subscription)?;
        if !self.sessions.is_declared(&subscription.topology) {
            self.prepare(&subscription.topology, subscription.declare)
                .await?;
        }
        // From here on it lasts as long as the locks of this subscription.
        renew_now(&self.site, &self.links, &lease).await;
        let around = (Arc::clone(&self.site), Arc::clone(&self.links));
        let may_create = subscription.declare == Declare::Create;
        let killed = self.killed.child_token();
        let claim = (Arc::clone(&lease), number);
        let partition = Partition::new(around.clone(), subscription, claim, killed)?;
        let partition = Arc::new(partition);
        lease.consume(&(Arc::clone(&partition) as Arc<dyn Leased>));
        let keys = partition.keys.clone();
        let (promoter, work) = Promoter::of(around, keys, may_create, &partition.killed);
        tokio::spawn(work.run());
        let link = Link::new(
            Arc::clone(&self.site),
            Place::Slot(partition.keys.slot),
            "read",
        );
        let reading = reader::run(Arc::clone(&partition), link);
        self.tasks.spawn(lease.tasks.track_future(reading));
        {
            let mut partitions = self
                .sessions
                .partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            partitions.retain(|partition| partition.strong_count() > 0);
            partitions.push(Arc::downgrade(&partition));
        }
        let source = PartitionSource {
            partition: Arc::clone(&partition),
            _promoter: promoter,
            _alive: Arc::clone(&self.alive),
        };
        Ok((Box::new(source), Arc::new(PartitionSettler(partition))))
    }

    /// The lease under which a subscription consumes, and the number of the subscription under it.
    fn lease_of(&self, subscription: &Subscription) -> Result<(Arc<Lease>, u32)> {
        let Some(ownership) = subscription.ownership else {
            let text = "a partition is consumed by its owner alone; acquire it first";
            return Err(Error::new(ErrorKind::Invalid, text));
        };
        let lease = self
            .sessions
            .granted
            .find(&subscription.topology, ownership);
        let lease = lease.filter(|_| fits(ownership.claim, subscription.part));
        let numbered = lease.and_then(|lease| {
            let number = lease.next_subscription(subscription.lock)?;
            Some((lease, number))
        });
        numbered.ok_or_else(|| {
            let text = "this ownership is over, or something is consumed under it already";
            Error::new(ErrorKind::Stale, text)
        })
    }
}

/// Whether this is what the claim allows to consume.
fn fits(claim: Claim, part: Part) -> bool {
    match (claim, part) {
        (Claim::Partition(owned), Part::Partition { index, .. }) => owned == index,
        (Claim::Forwarder, Part::Lane(lane)) => lane == 0,
        _ => false,
    }
}
