//! Dedup windows while processes die, copies fail and the store is down: two copies never run at the
//! same time, and no message is lost.

#![allow(clippy::unwrap_used, missing_docs)]

mod port;
mod queue_under_test;
mod two_step;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use longshore::{Backoff, Context, Draft, HandlerError, Health, Published, Router, Worker};
use port::{LEASE, Port, secs};
use queue_under_test::{Log, Order, Refund, until};
use tokio::time::Instant;
use two_step::Faults;

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_effect_runs_the_message_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    port.publish(&a.client, 1, "m").await;
    let router = port.router("a", secs(3600), |_| Ok(()));
    let first = port.worker(&a, router).await;
    until("it runs", || port.running.load(Ordering::SeqCst) == 1).await;
    a.dies().await;
    let died = Instant::now();
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(
        port.effects(),
        [("b", 1, 2)],
        "sent away at no cost while the lease lasted"
    );
    assert!(died.elapsed() <= LEASE + secs(6), "{:?}", died.elapsed());
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_effect_and_before_the_mark_runs_the_message_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.write_down, true);
    port.publish(&a.client, 1, "m").await;
    let first = port.plain(&a).await;
    port.effects.reaches(1).await;
    a.dies().await;
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1), ("b", 1, 2)]);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_mark_completes_the_message_without_another_start() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.settle_silent, true);
    port.publish(&a.client, 1, "m").await;
    let first = port.plain(&a).await;
    until("it is marked", || {
        a.faults.calls().iter().any(|c| c.starts_with("write Done"))
    })
    .await;
    a.dies().await;
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(
        b.faults.calls(),
        ["take Done { reply: None }", "settle Complete"]
    );
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn three_workers_run_each_id_once_and_never_two_copies_at_a_time() {
    let port = Port::new();
    let processes = [port.process("a"), port.process("b"), port.process("c")];
    for _ in 0..5 {
        port.publish(&processes[0].client, 1, "m").await;
    }
    let mut workers = Vec::new();
    for process in &processes {
        // Longer than a lease: it has to be renewed.
        let router = port.router(process.name, LEASE * 2 - secs(5), |_| Ok(()));
        workers.push(port.worker(process, router).await);
    }
    port.quiet().await;
    assert_eq!(port.effects().len(), 1, "{:?}", port.effects());
    assert!(!port.overlapped.load(Ordering::SeqCst));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_waits_for_a_failing_one_and_is_a_duplicate_once_that_succeeds() {
    let port = Port::new();
    let a = port.process("a");
    port.publish(&a.client, 1, "m").await;
    port.publish(&a.client, 2, "m").await;
    let router = port.router("a", secs(1), |cx| match cx.attempt() {
        1 | 2 => Err("not yet".into()),
        _ => Ok(()),
    });
    // Long enough for the copy to look in between.
    let backoff = Backoff::new(secs(20), secs(20));
    let worker = Worker::new(&a.client, &port.queue, router).backoff(backoff);
    let worker = worker.lock(LEASE).start().await.unwrap();
    let began = Instant::now();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 3)]);
    let starts = [("a", 1, 1), ("a", 1, 2), ("a", 1, 3)];
    assert_eq!(port.starts.all(), starts, "the copy waits over the retries");
    let took = began.elapsed();
    assert!(took < secs(60), "its own retry is not held back: {took:?}");
    assert!(!port.overlapped.load(Ordering::SeqCst));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_runs_once_the_first_has_become_a_dead_letter() {
    let port = Port::new();
    let a = port.process("a");
    port.publish(&a.client, 1, "m").await;
    port.publish(&a.client, 2, "m").await;
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    let router = port.router("a", secs(1), move |_| {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(HandlerError::permanent("never")),
            _ => Ok(()),
        }
    });
    let worker = port.worker(&a, router).await;
    let began = Instant::now();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1)]);
    let took = began.elapsed();
    assert!(took < LEASE / 2, "it waits for no lease to end: {took:?}");
    let dead = a
        .client
        .dead_letters(&port.queue)
        .list(None, 10)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert!(!port.overlapped.load(Ordering::SeqCst));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_keeps_messages_unstarted_and_uncounted_and_the_worker_not_ready() {
    let port = Port::new();
    let a = port.process("a");
    Faults::set(&a.faults.store_down, true);
    let worker = port.plain(&a).await;
    assert_eq!(worker.health(), Health::Ready);
    port.publish(&a.client, 1, "m").await;
    let why = "the store does not answer: the test took it down";
    until("not ready", || {
        worker.health() == Health::NotReady(why.into())
    })
    .await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(port.effects(), []);
    Faults::set(&a.faults.store_down, false);
    let back = Instant::now();
    port.quiet().await;
    assert!(back.elapsed() < secs(6), "{:?}", back.elapsed());
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(worker.health(), Health::Ready);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_at_a_stop_or_a_pause_holds_back_nothing() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.store_down, true);
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    until("not ready", || worker.health() != Health::Ready).await;
    worker.pause();
    let other = port.plain(&b).await;
    port.effects.reaches(1).await;
    other.stop().await;
    worker.resume();
    port.publish(&a.client, 2, "n").await;
    until("not ready", || worker.health() != Health::Ready).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() < secs(1), "{:?}", asked.elapsed());
    let other = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("b", 1, 1), ("b", 2, 1)], "at no cost");
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_down_after_the_effect_is_waited_for_before_the_message_completes() {
    let port = Port::new();
    let a = port.process("a");
    Faults::set(&a.faults.write_down, true);
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.effects.reaches(1).await;
    until("not ready", || worker.health() != Health::Ready).await;
    // What needs no mark is not held back.
    let refund = Draft::new(&Refund { order: 1 });
    for answer in a.client.publish_all(&port.queue, [refund]).await {
        answer.unwrap();
    }
    let dead = a.client.dead_letters(&port.queue);
    tokio::time::sleep(LEASE * 4).await;
    assert_eq!(dead.list(None, 10).await.unwrap().len(), 1);
    assert!(
        !a.faults.calls().contains(&"settle Complete".to_owned()),
        "{:?}",
        a.faults.calls()
    );
    Faults::set(&a.faults.write_down, false);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(worker.health(), Health::Ready);
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_lease_is_lost_is_cancelled() {
    let port = Port::new();
    let a = port.process("a");
    let cancelled = Log::new();
    let log = cancelled.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let log = log.clone();
        async move {
            cx.cancellation().cancelled().await;
            log.add(Instant::now());
            Ok(())
        }
    });
    let worker = Worker::new(&a.client, &port.queue, router).lock(LEASE);
    let worker = worker.time_limit(secs(3600)).start().await.unwrap();
    port.publish(&a.client, 1, "m").await;
    until("it is taken", || a.faults.takes.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(LEASE * 5).await;
    assert_eq!(cancelled.len(), 0, "renewed all the time");
    let lost = Instant::now();
    Faults::set(&a.faults.store_down, true);
    cancelled.reaches(1).await;
    let after = cancelled.all()[0] - lost;
    assert!(after <= LEASE + secs(1) && after >= LEASE / 2, "{after:?}");
    Faults::set(&a.faults.store_down, false);
    port.quiet().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_unstarted_keeps_the_id_its_publish_took() {
    let port = Port::new();
    let a = port.atomic_process("a");
    port.publish(&a.client, 1, "m").await;
    let worker = port
        .worker(&a, port.router("a", secs(3600), |_| Ok(())))
        .await;
    for starts in 1..=2 {
        port.starts.reaches(starts).await;
        // The next one is a suspect.
        Faults::set(&a.faults.start_down, starts == 2);
        port.broker.lose_locks();
    }
    let given_back = |call: &&String| call.starts_with("settle Release");
    until("it is given back", || {
        a.faults.calls().iter().filter(given_back).count() >= 2
    })
    .await;
    assert_eq!(port.publish(&a.client, 1, "m").await, Published::Duplicate);
    Faults::set(&a.faults.start_down, false);
    port.starts.reaches(3).await;
    let takes = a.faults.takes.load(Ordering::SeqCst);
    assert_eq!(takes, 0, "nobody had to ask for it");
    worker.stop().await;
}
