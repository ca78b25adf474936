//! A worker that stood still for three lock durations has lost its session, and learns it.

#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use longshore::Queue;
use longshore_testing::{
    brokers,
    history::{self, Ending, Event, Record},
};
use longshore_tests::{
    step::{Step, publish_steps},
    unique,
    waiting::until,
};
use tokio::process::{Child, Command};

const SERVICE: &str = env!("CARGO_BIN_EXE_frozen_service");
const PATIENCE: Duration = Duration::from_secs(60);

fn worker(url: &str, store: &str, queue: &Queue, history: &Path) -> Child {
    Command::new(SERVICE)
        .args([url, store, queue.name(), history.to_str().unwrap()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn signal(child: &Child, signal: &str) {
    let process = child.id().unwrap().to_string();
    let sent = Command::new("kill").args([signal, &process]).status().await;
    assert!(sent.unwrap().success());
}

/// Waits until something has happened in a process.
async fn happened(
    history: &Path,
    what: &str,
    process: Option<u32>,
    is: impl Fn(&Event) -> bool,
) -> Record {
    until(what, PATIENCE, async || {
        let mut all = history::read(history).ok()?.map(Result::unwrap);
        all.find(|record| Some(record.process) == process && is(&record.event))
    })
    .await
}

/// Waits until a step has started in a process; its token and attempt.
async fn started(history: &Path, number: u64, process: Option<u32>) -> (u64, u32) {
    let is = |event: &Event| matches!(event, Event::Start { message, .. } if *message == number);
    match happened(history, "a start", process, is).await.event {
        Event::Start { token, attempt, .. } => (token, attempt),
        other => panic!("{other:?}"),
    }
}

/// Waits until a step has ended in a process.
async fn ended(history: &Path, number: u64, process: Option<u32>, ending: Ending) {
    let is = |event: &Event| match event {
        Event::End { message, how, .. } => *message == number && *how == ending,
        _ => false,
    };
    happened(history, &format!("{ending:?}"), process, is).await;
}

async fn frozen(url: &str, store: &str) {
    let name = unique("frozen");
    let history = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.history"));
    let queue = Queue::new(&name).sessions(2);
    let client = longshore::connect(url).await.unwrap();
    let step = |number| Step {
        key: 7,
        number,
        fails: false,
    };
    publish_steps(&client, &queue, &[step(0)]).await.unwrap();

    let mut first = worker(url, store, &queue, &history);
    let one = first.id();
    let lost = started(&history, 0, one).await;
    signal(&first, "-STOP").await;
    // Three times the lock of 2 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let second = worker(url, store, &queue, &history);
    let two = second.id();
    let taken = started(&history, 0, two).await;
    assert!(taken.0 > lost.0 && taken.1 > lost.1, "{lost:?}, {taken:?}");
    ended(&history, 0, two, Ending::Succeeded).await;

    signal(&first, "-CONT").await;
    ended(&history, 0, one, Ending::Cancelled).await;
    // It sets the state and succeeds: neither may count.
    ended(&history, 0, one, Ending::Succeeded).await;
    // Once it is gone it has tried whatever it would.
    signal(&first, "-TERM").await;
    assert!(first.wait().await.unwrap().success());
    publish_steps(&client, &queue, &[step(1)]).await.unwrap();
    ended(&history, 1, two, Ending::Succeeded).await;
    let mut all = history::read(&history).unwrap().map(Result::unwrap);
    let wrong = all.find(|record| matches!(record.event, Event::Wrong { .. }));
    assert_eq!(wrong, None);

    until("everything is settled", PATIENCE, async || {
        let stats = client.stats(&queue).await.ok()?;
        (stats.ready == 0 && stats.in_flight.unwrap_or(0) == 0).then_some(())
    })
    .await;
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
    std::fs::remove_file(&history).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_a_worker_that_was_frozen_is_cancelled_and_neither_settles_nor_writes_state() {
    frozen(&brokers::redis_url().unwrap(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_a_worker_that_was_frozen_is_cancelled_and_neither_settles_nor_writes_state() {
    let store = brokers::redis_url().unwrap();
    frozen(&brokers::amqp_url().unwrap(), &store).await;
}
