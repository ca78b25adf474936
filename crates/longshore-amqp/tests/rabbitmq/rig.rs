//! A connected transport and a queue nobody else uses.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore_core::{
    ConnectOptions, Declare, Delivery, Destination, Envelope, Ids, Limits, Name, Outgoing, Part,
    Published, RandomIds, Receipt, Settlement, Settler, Source, Subscription, Topology, Transport,
    Unsettled, Verdict,
};
use longshore_testing::brokers;
use tokio::time::timeout;

/// How long something may take that has to happen, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long is listened for what must not happen.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

static QUEUES: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Rig {
    pub(crate) url: String,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Topology,
}

impl Rig {
    /// On the broker all tests share.
    pub(crate) async fn new() -> Self {
        Self::on(&brokers::amqp_url().expect("a broker")).await
    }

    pub(crate) async fn on(url: &str) -> Self {
        let topology = Topology::new(unique());
        let transport = connect(url).await;
        let declared = transport.declare(&topology, Declare::Create).await;
        declared.expect("a declared queue");
        Self {
            url: url.to_owned(),
            transport,
            topology,
        }
    }

    pub(crate) fn queue(&self) -> &Name {
        &self.topology.queue
    }

    pub(crate) fn subscription(&self) -> Subscription {
        Subscription {
            topology: Arc::new(self.topology.clone()),
            declare: Declare::Create,
            part: Part::Lane(0),
            ownership: None,
            prefetch: 64,
            lock: Duration::from_secs(30),
            suspect_returns: 2,
            limits: Limits::default(),
        }
    }

    pub(crate) async fn subscribe(&self) -> Taker {
        self.subscribe_as(self.subscription()).await
    }

    pub(crate) async fn subscribe_as(&self, subscription: Subscription) -> Taker {
        let subscribed = self.transport.subscribe(subscription).await;
        let (source, settler) = subscribed.expect("a subscription");
        Taker { source, settler }
    }

    pub(crate) fn outgoing(&self, envelope: Envelope) -> Outgoing {
        Outgoing {
            to: Destination::Queue(self.queue().clone(), Part::Lane(0)),
            envelope,
            delay: Duration::ZERO,
            dedup_window: None,
        }
    }

    pub(crate) async fn publish(&self, bodies: impl IntoIterator<Item = impl Into<String>>) {
        let bodies = bodies.into_iter().map(Into::into);
        let batch = bodies.map(|body: String| self.outgoing(message(&body)));
        for answer in self.transport.publish(batch.collect()).await {
            assert_eq!(answer.expect("a confirm"), Published::Accepted);
        }
    }
}

pub(crate) fn unique() -> Name {
    let number = QUEUES.fetch_add(1, Ordering::Relaxed);
    let run = std::process::id();
    let id = RandomIds.text();
    Name::new(format!("amqp.{run}.{number}.{}", &id[..8])).expect("a name")
}

pub(crate) async fn connect(url: &str) -> Arc<dyn Transport> {
    let options = ConnectOptions::default();
    longshore_amqp::connect(url, options)
        .await
        .expect("a connection")
}

pub(crate) fn message(body: &str) -> Envelope {
    let mut envelope = Envelope::new("test", body.to_owned());
    envelope.id = RandomIds.text();
    envelope
}

/// A source and its settler, with waiting built in.
pub(crate) struct Taker {
    pub(crate) source: Box<dyn Source>,
    pub(crate) settler: Arc<dyn Settler>,
}

impl Taker {
    /// At least one delivery, at most `max`; none where the source has stopped.
    pub(crate) async fn some(&mut self, max: usize) -> Vec<Delivery> {
        let mut into = Vec::new();
        let received = poll_fn(|cx| self.source.poll_receive(cx, max, &mut into));
        let count = timeout(PATIENCE, received)
            .await
            .expect("a delivery in time");
        assert_eq!(count.expect("a living source"), into.len());
        into
    }

    pub(crate) async fn one(&mut self) -> Delivery {
        self.some(1).await.pop().expect("a delivery")
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            let more = self.some(count - all.len()).await;
            assert!(!more.is_empty(), "stopped after {} of {count}", all.len());
            all.extend(more);
        }
        all
    }

    pub(crate) async fn nothing(&mut self) {
        let mut into = Vec::new();
        let received = poll_fn(|cx| self.source.poll_receive(cx, 1, &mut into));
        let outcome = timeout(SILENCE, received).await;
        assert!(outcome.is_err(), "{into:?}");
    }

    pub(crate) async fn lost(&mut self) -> Vec<Receipt> {
        let mut into = Vec::new();
        let lost = poll_fn(|cx| self.source.poll_lost(cx, &mut into));
        timeout(PATIENCE, lost).await.expect("a loss in time");
        into
    }

    pub(crate) async fn settle_one(&self, settlement: Settlement) -> Result<(), Unsettled> {
        let settled = timeout(PATIENCE, self.settler.settle(vec![settlement])).await;
        settled
            .expect("an answer in time")
            .pop()
            .expect("one answer")
    }

    pub(crate) async fn complete(&self, deliveries: Vec<Delivery>) {
        let batch = deliveries
            .iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt));
        for answer in self.settler.settle(batch.collect()).await {
            answer
                .map_err(|unsettled| unsettled.error)
                .expect("settled");
        }
    }

    /// Notes a start, as a worker does for a suspect.
    pub(crate) async fn start(&self, delivery: &Delivery) -> longshore_core::Result<()> {
        assert!(delivery.suspect, "{delivery:?}");
        let starts = [(delivery.receipt, delivery.attempt)];
        let answered = timeout(PATIENCE, self.settler.start(&starts)).await;
        let mut answers = answered.expect("an answer in time");
        answers.pop().expect("one answer")
    }

    pub(crate) async fn settle(&self, delivery: Delivery, verdict: Verdict) {
        let Delivery {
            receipt,
            attempt,
            envelope,
            ..
        } = delivery;
        let settlement = Settlement::new(receipt, attempt, verdict, envelope);
        let answer = self.settle_one(settlement).await;
        answer
            .map_err(|unsettled| unsettled.error)
            .expect("settled");
    }
}

/// What is there within a second, if anything.
pub(crate) async fn soon<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..100 {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

pub(crate) fn body(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.envelope.body).expect("text")
}
