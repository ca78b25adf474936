//! Load levelling: how many run, how many are here, how fast they start.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{Context, HandlerError, Router};
use queue_under_test::{Log, Order, QueueUnderTest, until};
use reading_ahead::{Faults, ReadingAhead};
use tokio::time::Instant;

/// Handlers that run until they are let go, and how many do.
#[derive(Clone, Default)]
struct Crowd {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    handled: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
    /// How long each takes at least.
    takes: Duration,
}

/// Leaves the crowd also when the handler is dropped.
struct Inside(Crowd);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Crowd {
    fn enter(&self) -> Inside {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        Inside(self.clone())
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }

    fn let_go(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }

    fn router(&self) -> Router {
        let crowd = self.clone();
        Router::new().handle_fn(move |order: Order, _: Context| {
            let crowd = crowd.clone();
            async move {
                let _inside = crowd.enter();
                while !crowd.open.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if !crowd.takes.is_zero() {
                    tokio::time::sleep(crowd.takes).await;
                }
                for _ in 0..order.id % 4 {
                    tokio::task::yield_now().await;
                }
                crowd.handled.fetch_add(1, Ordering::SeqCst);
                Ok::<_, HandlerError>(())
            }
        })
    }
}

fn reading_ahead() -> (QueueUnderTest, Arc<Faults>) {
    let mut faults = None;
    let under_test = QueueUnderTest::on(|inner| {
        let (transport, controls) = ReadingAhead::over(inner);
        faults = Some(controls);
        transport
    });
    (under_test, faults.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_run_than_allowed_over_all_drivers_and_all_slots_are_used() {
    for concurrency in [1, 2, 3, 7, 33] {
        let (under_test, crowd) = (QueueUnderTest::new(), Crowd::default());
        under_test.publish_orders(0..400).await;
        let worker = under_test.worker(crowd.router()).concurrency(concurrency);
        let worker = worker.start().await.unwrap();
        until("every slot is taken", || crowd.running() == concurrency).await;
        crowd.let_go(true);
        under_test.settled().await;
        worker.stop().await;
        assert_eq!(crowd.handled(), 400);
        assert_eq!(crowd.most.load(Ordering::SeqCst), concurrency);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_are_here_unsettled_than_the_prefetch_and_a_burst_stays_in_the_broker() {
    let ((under_test, _), crowd) = (reading_ahead(), Crowd::default());
    let mut id = 0;
    while id < 100_000 {
        under_test.publish_orders(id..id + 1_000).await;
        id += 1_000;
    }
    let worker = under_test
        .worker(crowd.router())
        .prefetch(50)
        .concurrency(8);
    let worker = worker.start().await.unwrap();
    until("every slot is taken", || crowd.running() == 8).await;
    assert_eq!(under_test.counts().await, (99_950, 50, 0, 0));
    crowd.let_go(true);
    while crowd.handled() < 100_000 {
        let (_, in_flight, ..) = under_test.counts().await;
        assert!(in_flight <= 50, "{in_flight}");
        tokio::task::yield_now().await;
    }
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(crowd.handled(), 100_000);
    assert_eq!(crowd.most.load(Ordering::SeqCst), 8);
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_below_the_concurrency_limits_what_runs() {
    let (under_test, crowd) = (QueueUnderTest::new(), Crowd::default());
    under_test.publish_orders(0..20).await;
    let worker = under_test.worker(crowd.router()).prefetch(3).concurrency(8);
    let worker = worker.start().await.unwrap();
    until("three run", || crowd.running() == 3).await;
    crowd.let_go(true);
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(crowd.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn concurrency_and_prefetch_change_while_running() {
    let (under_test, faults) = reading_ahead();
    let crowd = Crowd {
        takes: Duration::from_millis(10),
        ..Crowd::default()
    };
    under_test.publish_orders(0..200).await;
    let worker = under_test
        .worker(crowd.router())
        .prefetch(10)
        .concurrency(2);
    let worker = worker.start().await.unwrap();
    until("two run", || crowd.running() == 2).await;
    worker.set_concurrency(9);
    until("nine run", || crowd.running() == 9).await;
    worker.set_prefetch(40).unwrap();
    worker.set_concurrency(30);
    until("thirty run", || crowd.running() == 30).await;
    assert_eq!(faults.most_held.load(Ordering::SeqCst), 40);
    worker.set_concurrency(1);
    worker.set_prefetch(1).unwrap();
    crowd.let_go(true);
    until("what was above it has drained", || crowd.handled() > 40).await;
    assert!(under_test.counts().await.1 <= 1);
    crowd.most.store(0, Ordering::SeqCst);
    under_test.settled().await;
    assert_eq!(crowd.most.load(Ordering::SeqCst), 1);
    worker.stop().await;
    assert_eq!(crowd.handled(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_changed_while_paused_holds_after_the_resume() {
    let (under_test, crowd) = (QueueUnderTest::new(), Crowd::default());
    let worker = under_test
        .worker(crowd.router())
        .prefetch(10)
        .concurrency(10);
    let worker = worker.start().await.unwrap();
    worker.pause();
    until_taken_by(&under_test, 0).await;
    worker.set_prefetch(4).unwrap();
    under_test.publish_orders(0..20).await;
    worker.resume();
    until("four run", || crowd.running() == 4).await;
    crowd.let_go(true);
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(crowd.most.load(Ordering::SeqCst), 4);
}

async fn until_taken_by(under_test: &QueueUnderTest, consumers: u64) {
    let clock = std::time::Instant::now();
    loop {
        let stats = under_test.client.stats(&under_test.queue).await.unwrap();
        if stats.consumers == Some(consumers) {
            return;
        }
        assert!(clock.elapsed() < Duration::from_secs(30), "{stats:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_limits_starts_and_costs_no_attempts() {
    for rate in [3, 100] {
        let (under_test, starts) = (QueueUnderTest::new(), Log::new());
        let orders = u64::from(rate) * 10;
        under_test.publish_orders(0..orders).await;
        let log = starts.clone();
        let router = Router::new().handle_fn(move |_: Order, cx: Context| {
            log.add((cx.attempt(), Instant::now()));
            std::future::ready(Ok(()))
        });
        let worker = under_test.worker(router).rate(rate);
        let begun = Instant::now();
        let worker = worker.start().await.unwrap();
        under_test.settled().await;
        worker.stop().await;
        let starts = starts.all();
        assert!(starts.iter().all(|(attempt, _)| *attempt == 1));
        let took = starts.last().unwrap().1 - begun;
        let bounds = Duration::from_millis(9_500)..Duration::from_millis(10_500);
        assert!(bounds.contains(&took), "{rate}: {took:?}");
        let burst = (rate / 10).max(1) as usize;
        for (first, _) in starts.iter().enumerate() {
            let second = starts[first].1 + Duration::from_secs(1);
            let within = starts[first..]
                .iter()
                .filter(|(_, at)| *at < second)
                .count();
            assert!(within <= rate as usize + burst + 1, "{rate}: {within}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_rate_is_kept_over_all_drivers() {
    let (under_test, crowd) = (QueueUnderTest::new(), Crowd::default());
    crowd.let_go(true);
    under_test.publish_orders(0..120).await;
    let begun = Instant::now();
    let worker = under_test.worker(crowd.router()).rate(100);
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(crowd.handled(), 120);
    // 10 at once, 110 at 100 a second; drivers that look at once can run into debt by a burst each.
    assert!(
        begun.elapsed() >= Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_a_queue_and_each_message_runs_once() {
    let (under_test, starts) = (QueueUnderTest::new(), Log::new());
    let mut workers = Vec::new();
    for name in ["a", "b"] {
        let log = starts.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            log.add((order.id, cx.attempt(), name));
            async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            }
        });
        let client = under_test.another_client();
        let worker = longshore::Worker::new(&client, &under_test.queue, router);
        workers.push(worker.concurrency(4).prefetch(4).start().await.unwrap());
    }
    under_test.publish_orders(0..400).await;
    under_test.settled().await;
    for worker in workers {
        worker.stop().await;
    }
    let mut starts = starts.all();
    let of_a = starts.iter().filter(|start| start.2 == "a").count();
    assert!((100..=300).contains(&of_a), "{of_a}");
    starts.sort_unstable();
    let expected: Vec<_> = (0..400).map(|id| (id, 1)).collect();
    let all: Vec<_> = starts.into_iter().map(|(id, n, _)| (id, n)).collect();
    assert_eq!(all, expected);
}
