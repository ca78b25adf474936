//! The workers of a run in one process, on the transport that does not outlive it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use longshore::{Client, ConnectOptions, Declare, Limits};
use longshore_memory::MemoryBroker;
use longshore_testing::history::Recorder;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    Failure,
    handler::Hands,
    plan::{Kind, Plan},
    random::Random,
    raw::{Forger, Raw},
    reach::connected,
    service::Service,
    slot::Tally,
};

/// A run in one process: workers and publishers are tasks, and each stands for a process.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The broker.
    pub(crate) broker: MemoryBroker,
    /// What the faults draw from.
    pub(crate) random: Random,
    /// The workers; `None` while one is away.
    pub(crate) workers: Vec<Option<Running>>,
    plan: Plan,
    path: PathBuf,
    ledger: String,
    /// The number the next worker has as a process.
    next: u32,
    /// What became of the workers.
    pub(crate) tally: Tally,
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Running {
    tell: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Failure>>,
}

impl Inside {
    /// A broker of its own, and no worker yet.
    pub(crate) fn new(plan: &Plan, history: &Path, ledger: &Path) -> Self {
        Self {
            broker: MemoryBroker::new(&ConnectOptions::default()),
            random: Random::of(plan.seed, u64::MAX),
            workers: (0..plan.workers).map(|_| None).collect(),
            plan: plan.clone(),
            path: history.to_owned(),
            ledger: ledger.to_string_lossy().into_owned(),
            next: 1,
            tally: Tally::default(),
        }
    }

    /// Starts a worker that does not run.
    ///
    /// # Errors
    /// The history cannot be written.
    pub(crate) async fn start(&mut self, worker: usize) -> Result<(), Failure> {
        let history = Arc::new(Recorder::open_as(&self.path, self.next)?);
        self.next += 1;
        let client = self.client();
        let hands = Arc::new(Hands {
            plan: self.plan.clone(),
            history,
            forger: Forger::new(Raw::on(self.broker.open())),
            ledger: connected(&self.ledger).await?,
            dedup: Kind::Dedup.queue(&self.plan),
        });
        let (tell, told) = oneshot::channel();
        let mut service = Service::new(&hands);
        service.start(&client, &hands).await;
        let task = tokio::spawn(async move {
            service.watch(told).await?;
            service.stop().await?;
            client.close().await;
            hands.forger.close().await;
            Ok(())
        });
        self.workers[worker] = Some(Running { tell, task });
        Ok(())
    }

    /// Stops a worker, and waits until it has.
    ///
    /// # Errors
    /// What went wrong in it.
    pub(crate) async fn stop(&mut self, worker: usize) -> Result<(), Failure> {
        let Some(running) = self.workers[worker].take() else {
            return Ok(());
        };
        // One that has ended by itself says why below.
        let _ = running.tell.send(());
        running.task.await??;
        self.tally.stops += 1;
        Ok(())
    }

    /// A client of the broker, as a process would have one.
    pub(crate) fn client(&self) -> Client {
        let options = ConnectOptions::default();
        let transport = self.broker.open();
        Client::new(transport, &options, Declare::Create, Limits::default())
    }
}
