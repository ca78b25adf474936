//! One process: its connection, and a worker for each queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use longshore::{Backoff, Client, Context, Queue, Router, Worker, WorkerHandle};
use longshore_testing::{faulty::Faults, history::Event};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    handler::{self, Post},
    items::LANES,
    job::{Ask, Job},
    scenario::Kind,
    world::World,
};

/// How soon a service that could not start its workers tries again.
const AGAIN: Duration = Duration::from_millis(200);

/// One process: its connection, and a worker for each queue.
pub(crate) struct Process {
    pub(crate) number: u32,
    pub(crate) world: Arc<World>,
    pub(crate) faults: Faults,
    client: Client,
    /// It was killed: nothing of it happens any more.
    pub(crate) killed: CancellationToken,
    /// It was asked to stop.
    leaving: CancellationToken,
    handles: Mutex<Vec<WorkerHandle>>,
    starting: Mutex<Option<JoinHandle<()>>>,
    /// The largest token it has seen of each partition.
    tokens: Mutex<BTreeMap<String, u64>>,
}

impl Process {
    /// Starts it; its workers come as soon as they can.
    pub(crate) fn begin(world: &Arc<World>) -> Arc<Self> {
        let number = world.next_worker();
        let (client, faults) = world.connect(number);
        let process = Arc::new(Self {
            number,
            world: Arc::clone(world),
            faults,
            client,
            killed: CancellationToken::new(),
            leaving: CancellationToken::new(),
            handles: Mutex::default(),
            starting: Mutex::default(),
            tokens: Mutex::default(),
        });
        let starting = tokio::spawn(Arc::clone(&process).start());
        *lock(&process.starting) = Some(starting);
        process
    }

    async fn start(self: Arc<Self>) {
        for index in 0..self.world.queues.len() {
            loop {
                let worker = self.worker(index);
                let started = tokio::select! {
                    biased;
                    () = self.killed.cancelled() => return,
                    () = self.leaving.cancelled() => return,
                    started = worker.start() => started,
                };
                match started {
                    Ok(handle) => {
                        lock(&self.handles).push(handle);
                        break;
                    }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        }
    }

    fn worker(self: &Arc<Self>, index: usize) -> Worker {
        let queue: &Queue = &self.world.queues[index];
        let shape = &self.world.scenario.queues[index];
        let post = Post {
            process: Arc::clone(self),
            queue: index,
        };
        let asked = post.clone();
        let router = Router::new()
            .handle_fn(move |job: Job, cx: Context| handler::work(post.clone(), job, cx))
            .handle_fn(move |ask: Ask, cx: Context| handler::tell(asked.clone(), ask, cx));
        let settings = &self.world.scenario.settings;
        let mut worker = Worker::new(&self.client, queue, router)
            .max_attempts(settings.max_attempts)
            .concurrency(settings.concurrency)
            .prefetch(settings.prefetch)
            .time_limit(settings.time_limit)
            .lock(settings.lock)
            .stop_deadline(settings.stop_deadline)
            .backoff(Backoff::new(settings.backoff.0, settings.backoff.1));
        if shape.kind == Kind::Weighted {
            worker = worker.weights(LANES.iter().zip([5, 3, 1]));
        }
        if shape.partitions() > 0 && settings.set_aside_sessions {
            worker = worker.set_aside_sessions();
        }
        worker
    }

    /// Whether it lives and was not asked to stop.
    pub(crate) fn is_alive(&self) -> bool {
        !self.killed.is_cancelled() && !self.leaving.is_cancelled()
    }

    /// Something with each of its workers.
    pub(crate) fn each(&self, act: impl Fn(&WorkerHandle)) {
        lock(&self.handles).iter().for_each(act);
    }

    /// Stops it as it should.
    pub(crate) async fn leave(&self) {
        if !self.is_alive() {
            return;
        }
        self.leaving.cancel();
        let starting = lock(&self.starting).take();
        if let Some(starting) = starting {
            let _ = starting.await;
        }
        if self.killed.is_cancelled() {
            return;
        }
        let within = self.world.scenario.settings.stop_deadline;
        let diary = &self.world.diary;
        diary.add(self.number, Event::StopBegins { within });
        let handles = std::mem::take(&mut *lock(&self.handles));
        join_all(handles.into_iter().map(WorkerHandle::stop)).await;
        if !self.killed.is_cancelled() {
            diary.add(self.number, Event::StopEnds);
            self.client.close().await;
        }
    }

    /// Kills it.
    pub(crate) fn die(&self) {
        if self.killed.is_cancelled() {
            return;
        }
        let victim = self.number;
        self.world.diary.add(0, Event::Killed { victim });
        self.killed.cancel();
        self.faults.die();
        // What is left of its workers goes by itself, and does nothing any more.
        lock(&self.handles).clear();
    }

    /// Takes note of the token of a partition, and tells where it is a new one.
    pub(crate) fn owns(&self, partition: String, token: u64) {
        let mut tokens = lock(&self.tokens);
        let known = tokens.entry(partition.clone()).or_default();
        if token > *known {
            *known = token;
            let diary = &self.world.diary;
            diary.add(self.number, Event::Owns { partition, token });
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
