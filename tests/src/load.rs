//! A publisher and a worker that go on through faults, and the account of every message.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore::{
    Client, Context, ErrorKind, HandlerError, Queue, Result, Router, Worker, WorkerHandle,
};
use tokio::task::JoinHandle;

use crate::job::Job;

/// Publishes jobs one after the other, whatever happens, and remembers which were confirmed.
#[derive(Debug)]
pub struct Publisher {
    stopping: Arc<AtomicBool>,
    account: Arc<Account>,
    task: JoinHandle<()>,
}

/// What became of what was published.
#[derive(Debug, Default)]
pub struct Account {
    confirmed: Mutex<BTreeSet<u64>>,
    unknown: AtomicU64,
    refused: AtomicU64,
}

impl Account {
    /// The jobs that were confirmed.
    pub fn confirmed(&self) -> BTreeSet<u64> {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many publishes ended unknown, and how many were refused.
    pub fn unconfirmed(&self) -> (u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (of(&self.unknown), of(&self.refused))
    }
}

impl Publisher {
    /// Starts to publish, with a pause of 2 ms between two jobs.
    pub fn start(client: Client, queue: Queue) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let account = Arc::new(Account::default());
        let (told, noted) = (Arc::clone(&stopping), Arc::clone(&account));
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !told.load(Ordering::SeqCst) {
                match client.publish(&queue, &Job { number }).await {
                    Ok(_) => {
                        let mut confirmed = noted
                            .confirmed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner);
                        confirmed.insert(number);
                    }
                    Err(error) if error.kind() == ErrorKind::Unknown => {
                        noted.unknown.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => {
                        noted.refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                number += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self {
            stopping,
            account,
            task,
        }
    }

    /// What became of what was published so far.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Stops after the publish under way.
    ///
    /// # Panics
    /// When publishing panicked.
    pub async fn stop(self) -> Arc<Account> {
        self.stopping.store(true, Ordering::SeqCst);
        self.task.await.expect("the publisher does not panic");
        self.account
    }
}

/// The jobs a worker has handled.
#[derive(Debug, Clone, Default)]
pub struct Handled(Arc<Mutex<BTreeSet<u64>>>);

impl Handled {
    /// How many different ones.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Those of `wanted` that were not handled.
    pub fn missing(&self, wanted: &BTreeSet<u64>) -> Vec<u64> {
        let handled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.difference(&handled).copied().collect()
    }

    /// Starts a worker that takes `busy` for each job.
    ///
    /// # Errors
    /// What keeps the worker from starting.
    pub async fn worker(
        &self,
        client: &Client,
        queue: &Queue,
        busy: Duration,
    ) -> Result<WorkerHandle> {
        let handled = self.clone();
        let router = Router::new().handle_fn(move |job: Job, _: Context| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(busy).await;
                let mut numbers = handled.0.lock().unwrap_or_else(PoisonError::into_inner);
                numbers.insert(job.number);
                Ok::<_, HandlerError>(())
            }
        });
        Worker::new(client, queue, router)
            .lock(Duration::from_secs(3))
            .start()
            .await
    }
}
