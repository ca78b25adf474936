//! A broker and a store, and processes that share them and can die.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{
    Client, ConnectOptions, Context, Declare, HandlerError, Limits, Published, Queue, Router,
    Worker, WorkerHandle,
};
use longshore_core::Store;
use longshore_memory::{MemoryBroker, MemoryStore};

use crate::{
    queue_under_test::{Log, Order},
    two_step::{Faults, TwoStep},
};

pub const WINDOW: Duration = Duration::from_secs(600);
pub const LEASE: Duration = Duration::from_secs(30);

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A broker and a store, each alone in the world, and processes that share them.
pub struct Port {
    pub options: ConnectOptions,
    pub broker: MemoryBroker,
    pub store: Arc<dyn Store>,
    pub queue: Queue,
    /// Process, id, attempt: what handlers have done.
    pub effects: Log<(&'static str, u64, u32)>,
    /// The same, when they begin.
    pub starts: Log<(&'static str, u64, u32)>,
    pub running: Arc<AtomicUsize>,
    pub overlapped: Arc<AtomicBool>,
}

/// A client as a process of its own.
pub struct Process {
    pub name: &'static str,
    pub client: Client,
    pub faults: Arc<Faults>,
}

impl Process {
    /// Everything it holds comes back, and nothing it does has any effect from now on.
    pub async fn dies(&self) {
        Faults::set(&self.faults.dead, true);
        self.client.close().await;
    }
}

impl Port {
    pub fn new() -> Self {
        Self::with(|queue| queue)
    }

    pub fn with(queue: impl FnOnce(Queue) -> Queue) -> Self {
        let options = ConnectOptions::default();
        Self {
            broker: MemoryBroker::new(&options),
            store: Arc::new(MemoryStore::new(options.clock.clone())),
            queue: queue(Queue::new("orders").dedup_window(WINDOW)),
            options,
            effects: Log::new(),
            starts: Log::new(),
            running: Arc::default(),
            overlapped: Arc::default(),
        }
    }

    pub fn process(&self, name: &'static str) -> Process {
        let (transport, faults) = TwoStep::over(self.broker.open(), Arc::clone(&self.store));
        let (declare, limits) = (Declare::Create, Limits::default());
        Process {
            name,
            client: Client::new(transport, &self.options, declare, limits),
            faults,
        }
    }

    /// A process whose broker keeps the marks itself.
    pub fn atomic_process(&self, name: &'static str) -> Process {
        let (transport, faults) = TwoStep::atomic(self.broker.open());
        let (declare, limits) = (Declare::Create, Limits::default());
        Process {
            name,
            client: Client::new(transport, &self.options, declare, limits),
            faults,
        }
    }

    /// The same without a way to die.
    pub fn atomic_client(&self) -> Client {
        let (declare, limits) = (Declare::Create, Limits::default());
        Client::new(self.broker.open(), &self.options, declare, limits)
    }

    /// A handler that notes its effect after this long, unless `fails` says otherwise.
    pub fn router<F>(&self, name: &'static str, takes: Duration, fails: F) -> Router
    where
        F: Fn(&Context) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
    {
        let (starts, effects) = (self.starts.clone(), self.effects.clone());
        let (running, overlapped) = (Arc::clone(&self.running), Arc::clone(&self.overlapped));
        Router::new().handle_fn(move |order: Order, cx: Context| {
            starts.add((name, order.id, cx.attempt()));
            let (effects, fails) = (effects.clone(), fails.clone());
            let (running, overlapped) = (Arc::clone(&running), Arc::clone(&overlapped));
            async move {
                if running.fetch_add(1, Ordering::SeqCst) > 0 {
                    overlapped.store(true, Ordering::SeqCst);
                }
                tokio::time::sleep(takes).await;
                running.fetch_sub(1, Ordering::SeqCst);
                fails(&cx)?;
                effects.add((name, order.id, cx.attempt()));
                Ok(())
            }
        })
    }

    pub async fn worker(&self, process: &Process, router: Router) -> WorkerHandle {
        let worker = Worker::new(&process.client, &self.queue, router).lock(LEASE);
        worker.start().await.unwrap()
    }

    /// A worker whose handlers succeed at once.
    pub async fn plain(&self, process: &Process) -> WorkerHandle {
        let router = self.router(process.name, Duration::ZERO, |_| Ok(()));
        self.worker(process, router).await
    }

    pub async fn publish(&self, client: &Client, order: u64, id: &'static str) -> Published {
        let publish = client.publish(&self.queue, &Order { id: order }).id(id);
        publish.await.unwrap()
    }

    /// Waits until nothing is left but dead letters.
    pub async fn quiet(&self) {
        let client = self.atomic_client();
        let clock = std::time::Instant::now();
        loop {
            let stats = client.stats(&self.queue).await.unwrap();
            let left = stats.ready + stats.in_flight.unwrap() + stats.delayed.unwrap();
            if left == 0 {
                return;
            }
            assert!(clock.elapsed() < secs(30), "still there: {stats:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn effects(&self) -> Vec<(&'static str, u64, u32)> {
        self.effects.all()
    }
}
