//! The sub-command `worker`: one worker for each queue, until SIGTERM.

use std::{path::Path, sync::Arc, time::Duration};

use longshore::{Client, Context, Health, Router, Worker, WorkerHandle};
use longshore_core::chaos::before_crash;
use longshore_testing::{
    history::{Event, Recorder},
    ledger,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::{
    Failure,
    handler::Hands,
    item::{Question, Work},
    lifeline,
    plan::{HISTORY, Kind, LEDGER, Plan},
    publisher::PATIENCE,
    raw::{Forger, Raw},
};

/// A broker that is away is asked again after so long.
const AGAIN: Duration = Duration::from_millis(200);
/// How often is looked at health and ownership.
const LOOK: Duration = Duration::from_millis(100);
/// The exit code after a second SIGTERM, as shells have it.
pub(crate) const TERMINATED: i32 = 143;

/// Works until it is told to stop.
///
/// # Errors
/// What is no fault of a broker.
pub(crate) async fn run() -> Result<(), Failure> {
    lifeline::hold();
    quiet();
    let mut told = signal(SignalKind::terminate())?;
    let plan = Plan::read(Path::new("."))?;
    let history = Arc::new(Recorder::open(HISTORY)?);
    let last = Arc::clone(&history);
    before_crash(move || {
        let victim = std::process::id();
        let _ = last.add(Event::Killed { victim });
    });
    let ledger = connected(LEDGER).await?;
    let forger = tokio::select! {
        biased;
        _ = told.recv() => return Ok(()),
        raw = below(&plan) => Forger::new(raw),
    };
    let watched = Arc::clone(&history);
    tokio::spawn(async move { memory(&watched).await });

    let hands = Arc::new(Hands {
        dedup: Kind::Dedup.queue(&plan),
        plan: plan.clone(),
        history: Arc::clone(&history),
        forger,
        ledger,
    });
    let (client, workers) = tokio::select! {
        biased;
        _ = told.recv() => return Ok(()),
        started = start(&plan, &hands) => started,
    };
    watch(&workers, &history, &mut told).await?;

    let within = plan.stop_deadline;
    history.add(Event::StopBegins { within })?;
    let stopping = futures_util::future::join_all(workers.into_iter().map(|(_, w)| w.stop()));
    tokio::select! {
        biased;
        _ = told.recv() => std::process::exit(TERMINATED),
        _ = stopping => history.add(Event::StopEnds)?,
    }
    tokio::select! {
        biased;
        _ = told.recv() => std::process::exit(TERMINATED),
        _ = futures_util::future::join(client.close(), hands.forger.close()) => Ok(()),
    }
}

/// Panics are part of the load; what they say can be a mebibyte.
fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let said: String = panic.to_string().chars().take(200).collect();
        eprintln!("{said}");
    }));
}

/// The ledger was started before anybody needs it, but may not listen yet.
///
/// # Errors
/// It never does.
pub(crate) async fn connected(path: &str) -> Result<ledger::Client, Failure> {
    let begun = Instant::now();
    loop {
        match ledger::Client::connect(path).await {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Connects below the client, as often as it takes.
pub(crate) async fn below(plan: &Plan) -> Raw {
    loop {
        match Raw::connect(plan).await {
            Ok(raw) => return raw,
            Err(error) => eprintln!("cannot connect: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Starts a worker for each queue, as often as it takes.
pub(crate) async fn start(plan: &Plan, hands: &Arc<Hands>) -> (Client, Vec<(Kind, WorkerHandle)>) {
    let client = loop {
        match plan
            .connect("chaos-worker", &plan.url, plan.store.as_deref())
            .await
        {
            Ok(client) => break client,
            Err(error) => eprintln!("cannot connect: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let mut workers = Vec::new();
    for kind in Kind::ALL {
        loop {
            match worker(plan, *kind, &client, hands).start().await {
                Ok(handle) => break workers.push((*kind, handle)),
                Err(error) => eprintln!("{} cannot be started: {error}", kind.name()),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    (client, workers)
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

/// Notes what changes, until the worker is told to stop.
async fn watch(
    workers: &[(Kind, WorkerHandle)],
    history: &Recorder,
    told: &mut Signal,
) -> Result<(), Failure> {
    let mut was = None;
    let mut owned = std::collections::BTreeMap::new();
    loop {
        let mut ready = true;
        for (kind, worker) in workers {
            if let Health::NotReady(why) = worker.health() {
                ready = false;
                if was != Some(false) {
                    eprintln!("{} is not ready: {why}", kind.name());
                }
            }
            for partition in worker.figures().partitions {
                if owned.insert(partition.index, partition.token) != Some(partition.token) {
                    let (of, index) = (Plan::PARTITIONS, partition.index);
                    history.add(Event::Owns {
                        partition: format!("{}.s{of}.{index:02}", kind.name()),
                        token: partition.token,
                    })?;
                }
            }
        }
        if was != Some(ready) {
            was = Some(ready);
            history.add(Event::Health { ready })?;
        }
        tokio::select! {
            biased;
            _ = told.recv() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Notes the resident memory of this process once a second.
async fn memory(history: &Recorder) {
    loop {
        if let Some(resident) = resident() {
            let _ = history.add(Event::Memory { resident });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// In bytes, where the system tells (Linux).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
