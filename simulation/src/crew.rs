//! The workers, and what is done to them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::WorkerHandle;
use tokio::{task::JoinSet, time::Instant};

use crate::{acts::Act, operator, process::Process, world::World};

/// How soon a dead process is there again.
const RESTART: Duration = Duration::from_millis(300);
/// Workers at a time.
const MOST: usize = 4;

/// The workers, and what is done to them.
pub(crate) struct Crew {
    world: Arc<World>,
    processes: Mutex<Vec<Arc<Process>>>,
    /// Those that were told to stop.
    leaving: Mutex<JoinSet<()>>,
}

impl Crew {
    /// As many as there are at first.
    pub(crate) fn begin(world: &Arc<World>) -> Arc<Self> {
        let crew = Self {
            world: Arc::clone(world),
            processes: Mutex::default(),
            leaving: Mutex::default(),
        };
        for _ in 0..world.scenario.processes {
            crew.join();
        }
        Arc::new(crew)
    }

    /// Those that are alive.
    pub(crate) fn alive(&self) -> Vec<Arc<Process>> {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.retain(|process| process.is_alive());
        processes.clone()
    }

    fn join(&self) {
        let process = Process::begin(&self.world);
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.push(process);
    }

    /// Does what the scenario says, until the load is over.
    pub(crate) async fn act(self: Arc<Self>) {
        let begun = Instant::now();
        for (at, act) in self.world.scenario.acts.clone() {
            tokio::time::sleep_until(begun + at).await;
            self.one(act).await;
        }
        tokio::time::sleep_until(begun + self.world.scenario.load).await;
    }

    async fn one(self: &Arc<Self>, act: Act) {
        let world = &self.world;
        let alive = self.alive();
        let chosen = |worker: u64| {
            let at = worker as usize % alive.len().max(1);
            alive.get(at).cloned()
        };
        match act {
            Act::Join if alive.len() < MOST => self.join(),
            Act::Join => {}
            Act::Leave(worker) => {
                if let Some(process) = chosen(worker) {
                    let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
                    leaving.spawn(async move { process.leave().await });
                }
            }
            Act::Die(worker) => {
                if let Some(process) = chosen(worker) {
                    process.die();
                }
            }
            Act::Pause(worker, lasts) => {
                if let Some(process) = chosen(worker) {
                    process.each(WorkerHandle::pause);
                    tokio::spawn(async move {
                        tokio::time::sleep(lasts).await;
                        process.each(WorkerHandle::resume);
                    });
                }
            }
            Act::Concurrency(worker, handlers) => {
                if let Some(process) = chosen(worker) {
                    process.each(|handle| handle.set_concurrency(handlers));
                }
            }
            Act::Prefetch(worker, messages) => {
                if let Some(process) = chosen(worker) {
                    process.each(|handle| drop(handle.set_prefetch(messages)));
                }
            }
            Act::Disconnect(worker, outage, news) => {
                if let Some(process) = chosen(worker) {
                    world.fault("disconnect", outage.max(news));
                    process.faults.disconnect(outage, news);
                }
            }
            Act::LoseOwnership(worker, news) => {
                if let Some(process) = chosen(worker) {
                    world.fault("ownership-lost", news);
                    process.faults.lose_ownership(news);
                }
            }
            Act::LoseLock(worker) => {
                if let Some(process) = chosen(worker) {
                    world.fault("lock-lost", Duration::ZERO);
                    process.faults.lose_lock();
                }
            }
            Act::LoseAll => {
                world.fault("all-lost", Duration::ZERO);
                world.broker().lose_locks();
            }
            Act::Redrive => operator::redrive(world).await,
            Act::BringBack => operator::bring_back(world).await,
            Act::Forge => operator::forge(world).await,
        }
    }

    /// Sees to it that there is somebody to do the work, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RESTART).await;
            if self.alive().is_empty() {
                self.join();
            }
        }
    }

    /// Everybody goes on and nobody is paused.
    pub(crate) fn resume(&self) {
        for process in self.alive() {
            process.each(WorkerHandle::resume);
        }
    }

    /// Everybody stops, and has stopped.
    pub(crate) async fn leave(&self) {
        let leaving = {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *leaving)
        };
        let alive = self.alive();
        let stopping = alive.iter().map(|process| process.leave());
        futures_util::future::join_all(stopping).await;
        leaving.join_all().await;
    }
}
