//! A service: one worker for each queue.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use longshore::{Client, Context, Health, Router, Worker, WorkerHandle};
use longshore_testing::history::{Event, Recorder};

use crate::{
    Failure,
    handler::Hands,
    item::{PATIENCE, Question, Work},
    plan::{Kind, Plan},
};

/// A broker that is away is asked again after so long.
pub(crate) const AGAIN: Duration = Duration::from_millis(200);
/// How often is looked at health and ownership.
const LOOK: Duration = Duration::from_millis(100);

/// One worker for each queue.
#[derive(Debug)]
pub(crate) struct Service {
    plan: Plan,
    history: Arc<Recorder>,
    workers: Vec<(Kind, WorkerHandle)>,
}

impl Service {
    /// Has no worker yet.
    pub(crate) fn new(hands: &Hands) -> Self {
        Self {
            plan: hands.plan.clone(),
            history: Arc::clone(&hands.history),
            workers: Vec::new(),
        }
    }

    /// Starts all workers, as often as it takes. Where this is dropped, those that have started run
    /// on until [`stop`](Self::stop).
    pub(crate) async fn start(&mut self, client: &Client, hands: &Arc<Hands>) {
        for kind in Kind::ALL {
            loop {
                match worker(&self.plan, *kind, client, hands).start().await {
                    Ok(handle) => break self.workers.push((*kind, handle)),
                    Err(error) => eprintln!("{} cannot be started: {error}", kind.name()),
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Notes what changes, until it is to stop.
    ///
    /// # Errors
    /// The history cannot be written.
    pub(crate) async fn watch(&self, mut told: impl Future + Unpin) -> Result<(), Failure> {
        let mut was = None;
        let mut owned = BTreeMap::new();
        loop {
            let mut ready = true;
            for (kind, worker) in &self.workers {
                if let Health::NotReady(why) = worker.health() {
                    ready = false;
                    if was != Some(false) {
                        eprintln!("{} is not ready: {why}", kind.name());
                    }
                }
                for partition in worker.figures().partitions {
                    if owned.insert(partition.index, partition.token) != Some(partition.token) {
                        let (of, index) = (Plan::PARTITIONS, partition.index);
                        self.history.add(Event::Owns {
                            partition: format!("{}.s{of}.{index:02}", kind.name()),
                            token: partition.token,
                        })?;
                    }
                }
            }
            if was != Some(ready) {
                was = Some(ready);
                self.history.add(Event::Health { ready })?;
            }
            tokio::select! {
                biased;
                _ = &mut told => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Stops all workers at once.
    ///
    /// # Errors
    /// The history cannot be written.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let within = self.plan.stop_deadline;
        self.history.add(Event::StopBegins { within })?;
        let workers = self.workers.into_iter();
        futures_util::future::join_all(workers.map(|(_, worker)| worker.stop())).await;
        Ok(self.history.add(Event::StopEnds)?)
    }
}

fn worker(plan: &Plan, kind: Kind, client: &Client, hands: &Arc<Hands>) -> Worker {
    let hands = Arc::clone(hands);
    let router = match kind {
        Kind::Requests => Router::new().handle_fn(move |question: Question, cx: Context| {
            let hands = Arc::clone(&hands);
            async move { hands.answer(question, cx).await }
        }),
        _ => Router::new().handle_fn(move |work: Work, cx: Context| {
            let hands = Arc::clone(&hands);
            async move { hands.handle(work, cx).await }
        }),
    };
    let time_limit = match kind {
        // Some replies come when nobody waits for them any more.
        Kind::Requests => PATIENCE * 2,
        _ => plan.time_limit,
    };
    Worker::new(client, &kind.queue(plan), router)
        .max_attempts(plan.max_attempts)
        .concurrency(plan.concurrency)
        .prefetch(plan.prefetch)
        .time_limit(time_limit)
        .lock(plan.lock)
        .backoff(plan.backoff())
        .stop_deadline(plan.stop_deadline)
}
