//! A run in one process, on the transport that does not outlive it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use longshore::{Client, ConnectOptions, Declare, Limits};
use longshore_memory::MemoryBroker;
use longshore_testing::{
    history::{Event, Recorder},
    ledger,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Failure,
    crew::Tally,
    drain,
    faults::Act,
    handler::Hands,
    hindsight,
    plan::{HISTORY, Kind, Plan},
    publisher::Publisher,
    random::Random,
    raw::{Forger, Raw},
    run::{AFTER, Order, YOUTH},
    service::Service,
    stall,
    worker::{connected, memory},
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
    tally: Tally,
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Running {
    tell: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Failure>>,
}

/// Runs load, faults, drain; gives back what became of it, and what broke.
///
/// # Errors
/// What keeps it from being run.
pub(crate) async fn run(
    order: &Order,
    plan: &Plan,
    folder: &Path,
) -> Result<(Tally, Vec<String>), Failure> {
    // Panics are part of the load.
    std::panic::set_hook(Box::new(|_| {}));
    let path = folder.join(HISTORY);
    let history = Arc::new(Recorder::open(&path)?);
    // Not in the folder of the run: the path of a socket is short.
    let socket = std::env::temp_dir().join(format!("longshore-chaos-{}", std::process::id()));
    let ledger = tokio::spawn(ledger::serve(socket.clone(), Recorder::open(&path)?));
    let watched = Arc::clone(&history);
    let memory = tokio::spawn(async move { memory(&watched).await });
    let watched = Arc::clone(&history);
    let stalls = tokio::spawn(async move { stall::watch(&watched).await });
    let mut inside = Inside {
        broker: MemoryBroker::new(&ConnectOptions::default()),
        random: Random::of(plan.seed, u64::MAX),
        workers: (0..plan.workers).map(|_| None).collect(),
        plan: plan.clone(),
        path: path.clone(),
        ledger: socket.to_string_lossy().into_owned(),
        next: 1,
        tally: Tally::default(),
    };
    for worker in 0..plan.workers {
        inside.start(worker).await?;
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let mut publishing = Vec::new();
    for number in 0..plan.publishers as u64 {
        let load = Publisher {
            plan: Arc::new(plan.clone()),
            history: Arc::clone(&history),
            client: inside.client(),
            raw: Arc::new(Raw::on(inside.broker.open())),
        };
        publishing.extend(load.start(number, 1, &stopping));
    }
    sleep(YOUTH).await;
    let until = Instant::now() + Duration::from_secs(order.seconds);
    while let (Act::Inside(act), true) = (order.fault.act, Instant::now() < until) {
        sleep(inside.random.millis(order.fault.rest.clone())).await;
        let fault = || order.fault.name.to_owned();
        history.add(Event::FaultBegins { fault: fault() })?;
        act(&mut inside).await?;
        history.add(Event::FaultEnds { fault: fault() })?;
    }
    sleep_until(until).await;
    history.add(Event::Healed)?;
    sleep(AFTER).await;
    stopping.store(true, Ordering::SeqCst);
    for task in publishing {
        task.await??;
    }

    let client = inside.client();
    let mut broken = Vec::new();
    match drain::emptied(&client, plan, None).await {
        Err(left) => broken.push(left),
        Ok(()) => {
            drain::dead_letters(&client, plan, &history).await?;
            hindsight::follow_ups(plan, &path, &history)?;
            history.add(Event::Drained)?;
        }
    }
    for worker in 0..plan.workers {
        inside.stop(worker).await?;
    }
    ledger.abort();
    memory.abort();
    stalls.abort();
    std::fs::remove_file(socket)?;
    Ok((inside.tally, broken))
}

impl Inside {
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

    fn client(&self) -> Client {
        let options = ConnectOptions::default();
        let transport = self.broker.open();
        Client::new(transport, &options, Declare::Create, Limits::default())
    }
}
