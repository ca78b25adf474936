//! Stopping and pausing: nothing is lost, nothing is charged, and it is over in time.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use longshore::{Context, ErrorKind, HandlerError, Health, Router, WorkerHandle};
use queue_under_test::{Log, Order, QueueUnderTest};
use reading_ahead::{Faults, ReadingAhead};
use tokio::time::Instant;

/// What the promise allows beyond the deadline.
const GRACE: Duration = Duration::from_millis(500);

/// One queue read ahead of its handlers.
struct Pier {
    under_test: QueueUnderTest,
    faults: Arc<Faults>,
    seen: Log<(u64, u32, &'static str)>,
}

impl Pier {
    fn new() -> Self {
        let mut faults = None;
        let under_test = QueueUnderTest::on(|inner| {
            let (transport, controls) = ReadingAhead::over(inner);
            faults = Some(controls);
            transport
        });
        Self {
            under_test,
            faults: faults.unwrap(),
            seen: Log::new(),
        }
    }

    /// A worker with 2 slots and 10 in its hands, whose handlers take this long.
    async fn worker(&self, takes: Duration, deadline: Duration) -> WorkerHandle {
        let seen = self.seen.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            let seen = seen.clone();
            async move {
                seen.add((order.id, cx.attempt(), "started"));
                tokio::time::sleep(takes).await;
                seen.add((order.id, cx.attempt(), "ended"));
                Ok(())
            }
        });
        let worker = self.under_test.worker(router).concurrency(2).prefetch(10);
        worker.stop_deadline(deadline).start().await.unwrap()
    }

    /// Attempt numbers of everything still there, by one look of a second worker.
    async fn left(&self) -> Vec<(u64, u32)> {
        let left = Log::new();
        let log = left.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            log.add((order.id, cx.attempt()));
            std::future::ready(Ok(()))
        });
        let client = self.under_test.another_client();
        let worker = longshore::Worker::new(&client, &self.under_test.queue, router);
        let worker = worker.start().await.unwrap();
        self.under_test.settled().await;
        worker.stop().await;
        let mut left = left.all();
        left.sort_unstable();
        left
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_running_handlers_finish_and_gives_back_the_others_at_no_cost() {
    let pier = Pier::new();
    let worker = pier.worker(secs(5), secs(30)).await;
    pier.under_test.publish_orders(1..=20).await;
    pier.seen.reaches(2).await;
    assert_eq!(pier.under_test.counts().await, (10, 10, 0, 0));
    let asked = Instant::now();
    let stop = tokio::spawn(worker.stop());
    loop {
        let counts = pier.under_test.counts().await;
        if counts == (18, 2, 0, 0) {
            break;
        }
        assert!(
            asked.elapsed() < secs(1),
            "available elsewhere within a second: {counts:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.await.unwrap();
    assert!(asked.elapsed() <= secs(5), "{:?}", asked.elapsed());
    assert_eq!(
        pier.seen.len(),
        4,
        "no other started: {:?}",
        pier.seen.all()
    );
    let mut settled = pier.faults.settlements();
    settled.sort_unstable();
    assert_eq!(
        settled,
        [vec!["Complete"; 2], vec!["Release { after: 0ns }"; 8]].concat()
    );
    let expected: Vec<_> = (3..=20).map(|id| (id, 1)).collect();
    assert_eq!(pier.left().await, expected);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_runs_is_dropped_and_its_attempt_is_used_up() {
    let pier = Pier::new();
    let worker = pier.worker(secs(3_600), secs(10)).await;
    pier.under_test.publish_orders(1..=3).await;
    pier.seen.reaches(2).await;
    let asked = Instant::now();
    worker.stop().await;
    let took = asked.elapsed();
    assert!(took >= secs(10) && took <= secs(10) + GRACE, "{took:?}");
    assert_eq!(pier.seen.len(), 2);
    assert_eq!(pier.left().await, [(1, 2), (2, 2), (3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_over_in_time_whenever_it_comes() {
    for trial in 0..1_000_u64 {
        let pier = Pier::new();
        let deadline = Duration::from_millis(trial * 7 % 1_000);
        let takes = Duration::from_millis(trial * 13 % 900);
        let worker = pier.worker(takes, deadline).await;
        pier.under_test.publish_orders(0..15).await;
        tokio::time::sleep(Duration::from_millis(trial * 3 % 500)).await;
        let asked = Instant::now();
        worker.stop().await;
        assert!(
            asked.elapsed() <= deadline + GRACE,
            "trial {trial}: {:?}",
            asked.elapsed()
        );
        let ended = |what| move |event: &(u64, u32, &str)| event.2 == what;
        let seen = pier.seen.all();
        let done = seen.iter().filter(|e| ended("ended")(e)).count();
        let counts = pier.under_test.counts().await;
        assert_eq!(
            counts.0 + counts.1 + counts.2,
            15 - done as u64,
            "trial {trial}"
        );
        let cut: Vec<u64> = seen
            .iter()
            .filter(|e| ended("started")(e))
            .map(|e| e.0)
            .filter(|id| !seen.contains(&(*id, 1, "ended")))
            .collect();
        for (id, attempt) in pier.left().await {
            let charged = if cut.contains(&id) { 2 } else { 1 };
            assert_eq!(attempt, charged, "trial {trial}: {id} of {cut:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_no_settlement_does_not_delay_a_stop() {
    for kind in [None, Some(ErrorKind::Unavailable), Some(ErrorKind::Unknown)] {
        let pier = Pier::new();
        match kind {
            None => pier.faults.silent.store(true, Ordering::SeqCst),
            kind => Faults::set(&pier.faults.settle, kind),
        }
        let worker = pier.worker(Duration::from_millis(1), secs(2)).await;
        pier.under_test.publish_orders(1..=20).await;
        pier.seen.reaches(4).await;
        let asked = Instant::now();
        worker.stop().await;
        assert!(
            asked.elapsed() <= secs(2) + GRACE,
            "{kind:?}: {:?}",
            asked.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn neither_a_pause_that_cannot_be_settled_nor_an_unreachable_broker_delays_a_stop() {
    for unreachable in [false, true] {
        let pier = Pier::new();
        let worker = pier.worker(secs(60), secs(1)).await;
        pier.under_test.publish_orders(1..=20).await;
        pier.seen.reaches(2).await;
        if unreachable {
            pier.faults.unreachable.store(true, Ordering::SeqCst);
        } else {
            Faults::set(&pier.faults.settle, Some(ErrorKind::Unavailable));
        }
        worker.pause();
        tokio::time::sleep(secs(20)).await;
        worker.resume();
        tokio::time::sleep(secs(20)).await;
        let asked = Instant::now();
        worker.stop().await;
        assert!(asked.elapsed() <= secs(1) + GRACE, "{:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_gives_back_what_never_started_and_lets_handlers_go_on() {
    let pier = Pier::new();
    let worker = pier.worker(secs(5), secs(30)).await;
    pier.under_test.publish_orders(1..=20).await;
    pier.seen.reaches(2).await;
    worker.pause();
    assert!(matches!(worker.health(), Health::NotReady(why) if why.contains("paused")));
    pier.seen.reaches(4).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(
        pier.seen.len(),
        4,
        "nothing else started: {:?}",
        pier.seen.all()
    );
    assert_eq!(pier.under_test.counts().await, (18, 0, 0, 0));
    worker.resume();
    assert_eq!(worker.health(), Health::Ready);
    pier.under_test.settled().await;
    worker.stop().await;
    let seen = pier.seen.all();
    assert_eq!(seen.len(), 40);
    assert!(
        seen.iter().all(|(_, attempt, _)| *attempt == 1),
        "at no cost"
    );
}

#[tokio::test(start_paused = true)]
async fn pausing_and_resuming_quickly_loses_and_repeats_nothing() {
    let pier = Pier::new();
    let worker = pier.worker(Duration::from_millis(3), secs(30)).await;
    pier.under_test.publish_orders(0..300).await;
    for round in 0..100_u64 {
        worker.pause();
        tokio::time::sleep(Duration::from_millis(round % 4)).await;
        worker.resume();
        tokio::time::sleep(Duration::from_millis(round % 7)).await;
    }
    pier.under_test.settled().await;
    worker.stop().await;
    let mut started: Vec<_> = pier.seen.all();
    started.retain(|event| event.2 == "started");
    started.sort_unstable();
    let expected: Vec<_> = (0..300).map(|id| (id, 1, "started")).collect();
    assert_eq!(started, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_paused_is_a_stop() {
    let pier = Pier::new();
    let worker = pier.worker(secs(5), secs(30)).await;
    pier.under_test.publish_orders(1..=3).await;
    pier.seen.reaches(2).await;
    worker.pause();
    tokio::time::sleep(secs(1)).await;
    worker.stop().await;
    assert_eq!(pier.seen.len(), 4, "what ran has finished");
    assert_eq!(pier.left().await, [(3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_stops_the_worker_as_gently() {
    let pier = Pier::new();
    let worker = pier.worker(secs(5), secs(30)).await;
    pier.under_test.publish_orders(1..=20).await;
    pier.seen.reaches(2).await;
    drop(worker);
    pier.seen.reaches(4).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(pier.seen.len(), 4);
    let stats = pier.under_test.client.stats(&pier.under_test.queue).await;
    assert_eq!(stats.unwrap().consumers, Some(0));
    let expected: Vec<_> = (3..=20).map(|id| (id, 1)).collect();
    assert_eq!(pier.left().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stop_goes_on_in_the_background() {
    let pier = Pier::new();
    let worker = pier.worker(secs(5), secs(30)).await;
    pier.under_test.publish_orders(1..=3).await;
    pier.seen.reaches(2).await;
    let stop = tokio::time::timeout(secs(1), worker.stop()).await;
    assert!(stop.is_err(), "handlers take longer");
    pier.seen.reaches(4).await;
    assert_eq!(pier.left().await, [(3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_it_stops_costs_its_message_and_no_time() {
    let under_test = QueueUnderTest::new();
    let seen = Log::new();
    under_test.publish_orders(1..=2).await;
    let log = seen.clone();
    let router = Router::new().handle_fn(move |order: Order, _: Context| {
        let log = log.clone();
        async move {
            log.add(order.id);
            tokio::time::sleep(secs(order.id)).await;
            if order.id == 1 {
                panic!("while stopping");
            }
            log.add(order.id);
            Ok::<_, HandlerError>(())
        }
    });
    let worker = under_test
        .worker(router)
        .max_attempts(1)
        .start()
        .await
        .unwrap();
    seen.reaches(2).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() <= secs(2), "{:?}", asked.elapsed());
    assert_eq!(seen.all(), [1, 2, 2], "the neighbour finished");
    assert_eq!(under_test.letter().await.detail, "panicked: while stopping");
}

#[tokio::test(start_paused = true)]
async fn run_until_works_until_its_future_completes() {
    let under_test = QueueUnderTest::new();
    let seen = Log::new();
    let log = seen.clone();
    let router = Router::new().handle_fn(move |order: Order, _: Context| {
        log.add(order.id);
        std::future::ready(Ok(()))
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(under_test.worker(router).run_until(stopped));
    under_test.publish_orders([1]).await;
    seen.reaches(1).await;
    assert!(!running.is_finished());
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    under_test.publish_orders([2]).await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(seen.all(), [1]);
    assert_eq!(under_test.counts().await, (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_with_several_drivers_loses_and_repeats_nothing() {
    for trial in 0..50_u64 {
        let pier = Pier::new();
        let worker = pier.worker(Duration::from_millis(trial % 3), secs(5)).await;
        pier.under_test.publish_orders(0..100).await;
        tokio::time::sleep(Duration::from_millis(trial % 10)).await;
        worker.stop().await;
        let done = pier.seen.all().iter().filter(|e| e.2 == "ended").count() as u64;
        let left = pier.left().await;
        assert_eq!(left.len() as u64, 100 - done, "trial {trial}");
        assert!(
            left.iter().all(|(_, attempt)| *attempt == 1),
            "trial {trial}: {left:?}"
        );
    }
}
