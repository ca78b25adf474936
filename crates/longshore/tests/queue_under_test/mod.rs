//! One queue on a broker of its own, and what a test asks of it.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use longshore::{
    Client, ConnectOptions, DeadLetter, Declare, Draft, Limits, Message, Queue, Router, SeededIds,
    Transport, Worker,
};
use longshore_memory::MemoryBroker;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
}

impl Message for Order {
    const TYPE: &'static str = "order.placed";
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    pub order: u64,
}

impl Message for Refund {
    const TYPE: &'static str = "refund";
}

/// A queue with nobody else on its broker.
pub struct QueueUnderTest {
    pub options: ConnectOptions,
    pub broker: MemoryBroker,
    pub client: Client,
    pub queue: Queue,
}

impl QueueUnderTest {
    pub fn new() -> Self {
        Self::on(|transport| transport)
    }

    /// With something between its client and the broker.
    pub fn on(between: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>) -> Self {
        let mut options = ConnectOptions::default();
        options.ids = Arc::new(SeededIds::new(1));
        let broker = MemoryBroker::new(&options);
        let transport = between(broker.open());
        Self {
            client: Client::new(transport, &options, Declare::Create, Limits::default()),
            broker,
            options,
            queue: Queue::new("orders"),
        }
    }

    /// Another client of the same broker, as if in another process.
    pub fn another_client(&self) -> Client {
        client(&self.broker, &self.options, Declare::Create)
    }

    pub fn read_only_client(&self) -> Client {
        client(&self.broker, &self.options, Declare::Verify)
    }

    /// A worker that has still to be configured and started.
    pub fn worker(&self, router: Router) -> Worker {
        Worker::new(&self.client, &self.queue, router)
    }

    pub async fn publish<M: Message>(&self, message: &M) {
        self.client
            .publish(&self.queue, message)
            .await
            .expect("published");
    }

    pub async fn publish_orders(&self, ids: impl IntoIterator<Item = u64>) {
        let drafts = ids.into_iter().map(|id| Draft::new(&Order { id }));
        for answer in self.client.publish_all(&self.queue, drafts).await {
            answer.expect("published");
        }
    }

    /// A body as any client could send it.
    pub async fn publish_raw(&self, kind: &'static str, content_type: &'static str, body: Vec<u8>) {
        let draft = Draft::raw(kind, content_type, body);
        for answer in self.client.publish_all(&self.queue, [draft]).await {
            answer.expect("published");
        }
    }

    /// Ready, in flight, delayed, dead.
    pub async fn counts(&self) -> (u64, u64, u64, u64) {
        let stats = self.client.stats(&self.queue).await.expect("figures");
        let known = |figure: Option<u64>| figure.expect("memory knows");
        (
            stats.ready,
            known(stats.in_flight),
            known(stats.delayed),
            stats.dead,
        )
    }

    /// Waits until every message has been completed or set aside.
    pub async fn settled(&self) {
        let clock = Instant::now();
        for looks in 0.. {
            let (ready, in_flight, delayed, _) = self.counts().await;
            if ready + in_flight + delayed == 0 {
                return;
            }
            let left = (ready, in_flight, delayed);
            assert!(clock.elapsed() < PATIENCE, "still there: {left:?}");
            tokio::time::sleep(step(looks)).await;
        }
    }

    pub async fn letters(&self) -> Vec<DeadLetter> {
        let dead = self.client.dead_letters(&self.queue);
        dead.list(None, 10_000).await.expect("a list")
    }

    /// The one dead letter there is.
    pub async fn letter(&self) -> DeadLetter {
        let mut letters = self.letters().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.remove(0)
    }
}

fn client(broker: &MemoryBroker, options: &ConnectOptions, declare: Declare) -> Client {
    Client::new(broker.open(), options, declare, Limits::default())
}

/// Short at first, longer when it takes long: paused time has hours to go through.
fn step(looks: u32) -> Duration {
    Duration::from_millis(u64::from(looks / 50).clamp(1, 100))
}

/// In real time, also where tokio's is paused.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Instant::now();
    for looks in 0.. {
        if condition() {
            return;
        }
        assert!(clock.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(step(looks)).await;
    }
}

/// What handlers tell a test.
#[derive(Debug)]
pub struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Debug> Log<T> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn add(&self, event: T) {
        self.0.lock().expect("not poisoned").push(event);
    }

    pub fn all(&self) -> Vec<T> {
        self.0.lock().expect("not poisoned").clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    /// Waits until there are this many.
    pub async fn reaches(&self, events: usize) {
        until(&format!("{events} events"), || self.len() >= events).await;
    }
}
