//! What the tests of this folder do to a broker in one line.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{sync::Arc, task::Poll, time::Duration};

use futures_util::future::poll_fn;
use longshore_core::{
    Claim, ConnectOptions, Declare, Delivery, Destination, Envelope, Error, ErrorKind, Limits,
    Membership, Name, Outgoing, Ownership, Part, Published, Reason, Receipt, Result, Settlement,
    Settler, Source, Subscription, Text, Topology, Transport, Unsettled, Verdict, defaults,
    partition_of,
};
use longshore_memory::MemoryBroker;

pub(crate) fn broker() -> MemoryBroker {
    MemoryBroker::new(&ConnectOptions::default())
}

pub(crate) fn name(name: &str) -> Name {
    Name::new(name).expect("a name")
}

pub(crate) fn sessions(partitions: u16) -> Arc<Topology> {
    let mut topology = Topology::new(name("orders"));
    topology.partitions = partitions;
    Arc::new(topology)
}

pub(crate) fn message(key: Option<&str>, id: &str) -> Envelope {
    let mut envelope = Envelope::new("order.placed", id.to_owned());
    envelope.id = id.into();
    envelope.key = key.map(Text::from);
    envelope
}

pub(crate) fn partition(key: &str, topology: &Topology) -> Part {
    let of = topology.partitions;
    Part::Partition {
        index: partition_of(&key.into(), of),
        of,
    }
}

/// To the partition of its key, or to the plain queue.
pub(crate) fn outgoing(topology: &Topology, envelope: Envelope) -> Outgoing {
    let part = match &envelope.key {
        Some(key) if topology.partitions > 0 => partition(key, topology),
        _ => Part::Lane(0),
    };
    Outgoing {
        to: Destination::Queue(topology.queue.clone(), part),
        envelope,
        delay: Duration::ZERO,
        dedup_window: topology.dedup_window,
    }
}

pub(crate) async fn publish(
    transport: &Arc<dyn Transport>,
    topology: &Topology,
    key: Option<&str>,
    id: &str,
) -> Published {
    let batch = vec![outgoing(topology, message(key, id))];
    let mut answers = transport.publish(batch).await;
    answers.remove(0).expect("it is stored")
}

pub(crate) fn subscription(
    topology: &Arc<Topology>,
    part: Part,
    ownership: Option<Ownership>,
) -> Subscription {
    Subscription {
        topology: topology.clone(),
        declare: Declare::Create,
        part,
        ownership,
        prefetch: 64,
        lock: Duration::from_secs(30),
        suspect_returns: 2,
        limits: Limits::default(),
    }
}

/// One source with its settler.
pub(crate) struct Consumer {
    pub(crate) source: Box<dyn Source>,
    pub(crate) settler: Arc<dyn Settler>,
}

impl Consumer {
    pub(crate) async fn of(
        transport: &Arc<dyn Transport>,
        topology: &Arc<Topology>,
        part: Part,
        ownership: Option<Ownership>,
    ) -> Self {
        let subscription = subscription(topology, part, ownership);
        let (source, settler) = transport.subscribe(subscription).await.expect("subscribes");
        Self { source, settler }
    }

    /// The partition this ownership is of.
    pub(crate) async fn of_partition(
        transport: &Arc<dyn Transport>,
        topology: &Arc<Topology>,
        owned: Ownership,
    ) -> Self {
        let Claim::Partition(index) = owned.claim else {
            panic!("{owned:?}");
        };
        let of = topology.partitions;
        Self::of(
            transport,
            topology,
            Part::Partition { index, of },
            Some(owned),
        )
        .await
    }

    pub(crate) async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let mut into = Vec::new();
        poll_fn(|cx| self.source.poll_receive(cx, max, &mut into)).await?;
        Ok(into)
    }

    /// Exactly so many, one after another. Where they do not come, paused time ends the wait at once.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let more = self.receive(count - taken.len());
            let more = tokio::time::timeout(2 * defaults::LONGEST_DELAY, more).await;
            taken.extend(more.expect("it comes").expect("receives"));
        }
        taken
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        self.take(1).await.remove(0)
    }

    pub(crate) async fn is_quiet(&mut self) -> bool {
        poll_fn(|cx| {
            let polled = self.source.poll_receive(cx, 64, &mut Vec::new());
            Poll::Ready(polled.is_pending())
        })
        .await
    }

    pub(crate) async fn lost(&mut self) -> Vec<Receipt> {
        let mut lost = Vec::new();
        poll_fn(|cx| Poll::Ready(self.source.poll_lost(cx, &mut lost).is_ready())).await;
        lost
    }

    pub(crate) async fn end(&mut self) -> ErrorKind {
        self.receive(1).await.expect_err("it has ended").kind()
    }

    pub(crate) async fn start(&self, delivery: &Delivery, attempt: u32) -> Result<(), ErrorKind> {
        let answers = self.settler.start(&[(delivery.receipt, attempt)]).await;
        kind(answers.into_iter().next().expect("one answer"))
    }

    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<(), ErrorKind> {
        let answers = self.settler.settle(vec![settlement]).await;
        let answer = answers.into_iter().next().expect("one answer");
        answer.map_err(|Unsettled { error, .. }| error.kind())
    }

    pub(crate) async fn complete(&self, delivery: &Delivery) -> Result<(), ErrorKind> {
        let settlement = Settlement::complete(delivery.receipt, delivery.attempt);
        self.settle(settlement).await
    }

    pub(crate) async fn release(&self, delivery: &Delivery, attempt: u32) -> Result<(), ErrorKind> {
        let after = Duration::ZERO;
        self.settle(verdict(delivery, attempt, Verdict::Release { after }))
            .await
    }

    pub(crate) async fn dead_letter(&self, delivery: &Delivery) -> Result<(), ErrorKind> {
        let set_aside = Verdict::DeadLetter {
            reason: Reason::Exhausted,
            detail: String::new(),
        };
        self.settle(verdict(delivery, delivery.attempt, set_aside))
            .await
    }
}

pub(crate) fn verdict(delivery: &Delivery, attempt: u32, verdict: Verdict) -> Settlement {
    Settlement::new(
        delivery.receipt,
        attempt,
        verdict,
        delivery.envelope.clone(),
    )
}

pub(crate) async fn acquire(member: &dyn Membership, claim: Claim) -> Option<Ownership> {
    member.acquire(claim).await.expect("an answer")
}

/// What a membership has lost since it was asked last.
pub(crate) async fn lost(member: &dyn Membership) -> Vec<Ownership> {
    let mut lost = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(ownership) = member.poll_lost(cx) {
            lost.push(ownership);
        }
        Poll::Ready(())
    })
    .await;
    lost
}

pub(crate) fn kind<T>(answer: Result<T, Error>) -> Result<T, ErrorKind> {
    answer.map_err(|error| error.kind())
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|d| &*d.envelope.id).collect()
}

pub(crate) fn attempts(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(|d| d.attempt).collect()
}
