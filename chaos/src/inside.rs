//! A run in one process, on the transport that does not outlive it.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use longshore_testing::{
    history::{Event, Recorder},
    ledger,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    Failure, drain,
    faults::Act,
    hindsight,
    interior::Inside,
    order::{AFTER, Order, YOUTH},
    plan::{HISTORY, Plan},
    publisher::Publisher,
    raw::Raw,
    slot::Tally,
    stall,
    worker::memory,
};

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
    let mut inside = Inside::new(plan, &path, &socket);
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
