//! The sub-command `worker`: one worker for each queue, until SIGTERM.

use std::{path::Path, sync::Arc, time::Duration};

use longshore_core::chaos::{before_crash, when_noting};
use longshore_testing::history::{Event, Recorder};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Failure,
    handler::Hands,
    item::Item,
    lifeline,
    plan::{HISTORY, Kind, LEDGER, Plan},
    raw::Forger,
    reach::{below, connect, connected},
    service::Service,
    stall,
};

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
    let notes = Arc::clone(&history);
    when_noting(move |envelope, attempt| {
        if let Some(message) = Item::number_of(envelope) {
            let _ = notes.add(Event::Noting { message, attempt });
        }
    });
    let ledger = connected(LEDGER).await?;
    let forger = tokio::select! {
        biased;
        _ = told.recv() => return Ok(()),
        raw = below(&plan) => Forger::new(raw),
    };
    let watched = Arc::clone(&history);
    tokio::spawn(async move { memory(&watched).await });
    let watched = Arc::clone(&history);
    tokio::spawn(async move { stall::watch(&watched).await });

    let hands = Arc::new(Hands {
        dedup: Kind::Dedup.queue(&plan),
        plan: plan.clone(),
        history: Arc::clone(&history),
        forger,
        ledger,
    });
    let client = tokio::select! {
        biased;
        _ = told.recv() => return Ok(()),
        client = connect(&plan) => client,
    };
    let mut service = Service::new(&hands);
    // Those that run already are stopped as they should be.
    let all = tokio::select! {
        biased;
        _ = told.recv() => false,
        () = service.start(&client, &hands) => true,
    };
    if all {
        service.watch(Box::pin(told.recv())).await?;
    }

    let over = async {
        service.stop().await?;
        futures_util::future::join(client.close(), hands.forger.close()).await;
        Ok(())
    };
    tokio::select! {
        biased;
        _ = told.recv() => std::process::exit(TERMINATED),
        over = over => over,
    }
}

/// Panics are part of the load; what they say can be a mebibyte.
fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let said: String = panic.to_string().chars().take(200).collect();
        eprintln!("{said}");
    }));
}

/// Notes the resident memory of this process once a second.
pub(crate) async fn memory(history: &Recorder) {
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
