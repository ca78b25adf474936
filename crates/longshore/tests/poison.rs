//! Handlers that panic, hang or misbehave otherwise: their message pays, and nobody else.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use longshore::{
    Backoff, Context, DeadLetter, HandlerError, Health, Reason, Route, Router, WorkerHandle,
};
use queue_under_test::{Log, Order, QueueUnderTest, Refund, until};
use tokio::time::Instant;

type Handled = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

fn quick() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_millis(10))
}

/// Runs one poisonous order among twenty refunds, with two attempts; every refund must be handled at its
/// first start, also one published after it all.
async fn poison<F>(handler: F) -> DeadLetter
where
    F: Fn(Order, Context) -> Handled + Send + Sync + 'static,
{
    let (under_test, refunds) = (QueueUnderTest::new(), Log::new());
    let log = refunds.clone();
    let router = Router::new()
        .route(Route::function(handler).time_limit(Duration::from_secs(2)))
        .handle_fn(move |refund: Refund, cx: Context| {
            let log = log.clone();
            async move {
                tokio::task::yield_now().await;
                log.add((refund.order, cx.attempt()));
                Ok(())
            }
        });
    for order in 0..20 {
        if order == 7 {
            under_test.publish(&Order { id: 13 }).await;
        }
        under_test.publish(&Refund { order }).await;
    }
    let worker = under_test.worker(router).max_attempts(2).backoff(quick());
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    under_test.publish(&Refund { order: 20 }).await;
    under_test.settled().await;
    worker.stop().await;
    let mut handled = refunds.all();
    handled.sort_unstable();
    assert_eq!(
        handled,
        (0..=20).map(|order| (order, 1)).collect::<Vec<_>>()
    );
    let letter = under_test.letter().await;
    assert_eq!((&letter.reason, letter.attempts), (&Reason::Exhausted, 2));
    letter
}

/// Panics when dropped, unless a panic is on its way already.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_told_whatever_it_carries() {
    let text = poison(|_, _| Box::pin(async { panic!("a str") })).await;
    assert_eq!(text.detail, "panicked: a str");
    let string = poison(|order, _| Box::pin(async move { panic!("order {}", order.id) })).await;
    assert_eq!(string.detail, "panicked: order 13");
    let other = poison(|_, _| Box::pin(async { std::panic::panic_any(7) })).await;
    assert_eq!(other.detail, "panicked: (no text)");
    let waiting = poison(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            panic!("late")
        })
    });
    assert_eq!(waiting.await.detail, "panicked: late");
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_future_exists_is_counted() {
    let letter = poison(|_, _| panic!("in the sync part")).await;
    assert_eq!(letter.detail, "panicked: in the sync part");
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_dropping_is_counted() {
    let local = poison(|_, _| {
        Box::pin(async {
            let _bomb = Bomb("a local");
            Ok(())
        })
    });
    assert_eq!(local.await.detail, "panicked: a local");
    let hanging = poison(|_, _| {
        Box::pin(async {
            let _bomb = Bomb("dropped by the time limit");
            std::future::pending().await
        })
    });
    assert_eq!(hanging.await.detail, "the time limit of 2s passed");
}

/// A future that is done but still holds something that panics when dropped.
struct Loaded(Bomb);

impl Future for Loaded {
    type Output = Result<(), HandlerError>;
    fn poll(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let _ = &self.0;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_dropping_the_finished_handler_is_counted_also_with_something_to_publish() {
    let alone = poison(|_, _| Box::pin(Loaded(Bomb("finished")))).await;
    assert_eq!(alone.detail, "panicked: finished");
    let publishing = poison(|order, cx| {
        Box::pin({
            let queue = longshore::Queue::new("elsewhere");
            drop(std::future::IntoFuture::into_future(
                cx.publish(&queue, &order),
            ));
            Loaded(Bomb("finished"))
        })
    });
    assert_eq!(publishing.await.detail, "panicked: finished");
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_carries_something_that_panics_when_dropped_is_counted() {
    let letter = poison(|_, _| Box::pin(async { std::panic::panic_any(Bomb("twice")) })).await;
    assert_eq!(letter.detail, "panicked: (no text)");
}

#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be told")
    }
}

impl std::error::Error for Unspeakable {}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_shown_is_counted() {
    let letter = poison(|_, _| Box::pin(async { Err(Unspeakable.into()) })).await;
    assert_eq!(letter.detail, "panicked: cannot be told");
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_the_blocking_pool_is_counted() {
    let under_test = QueueUnderTest::new();
    under_test.publish(&Order { id: 1 }).await;
    let router =
        Router::new().handle_blocking(|_: Order, _| -> Result<(), _> { panic!("blocked") });
    let worker = under_test.worker(router).max_attempts(2).backoff(quick());
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    let letter = under_test.letter().await;
    assert_eq!(
        (letter.attempts, &letter.detail[..]),
        (2, "panicked: blocked")
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_past_its_time_limit_is_dropped_and_retried() {
    struct Noticed(Log<Duration>, Instant);
    impl Drop for Noticed {
        fn drop(&mut self) {
            self.0.add(self.1.elapsed());
        }
    }
    let drops = Log::new();
    let log = drops.clone();
    let letter = poison(move |_, cx| {
        let noticed = Noticed(log.clone(), Instant::now());
        Box::pin(async move {
            let _noticed = noticed;
            let left = cx.time_left();
            assert!(left <= Duration::from_secs(2) && left > Duration::from_millis(1_900));
            std::future::pending().await
        })
    });
    assert_eq!(letter.await.detail, "the time limit of 2s passed");
    let drops = drops.all();
    assert_eq!(drops.len(), 2);
    for after in drops {
        let late = after
            .checked_sub(Duration::from_secs(2))
            .expect("not before");
        assert!(late < Duration::from_millis(50), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_without_a_limit_of_its_own_has_that_of_the_worker() {
    let (under_test, ends) = (QueueUnderTest::new(), Log::new());
    under_test.publish(&Order { id: 1 }).await;
    under_test.publish(&Refund { order: 1 }).await;
    async fn long<M>(_: M, _: Context) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_secs(100)).await;
        Ok(())
    }
    let log = ends.clone();
    let router = Router::new()
        .handle_fn(long::<Order>)
        .route(Route::function(long::<Refund>).time_limit(Duration::from_secs(200)))
        .layer(longshore::middleware::from_fn(move |cx, next| {
            let log = log.clone();
            async move {
                let answer = next.run(cx).await;
                log.add(answer.is_ok());
                answer
            }
        }));
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.time_limit(Duration::from_secs(50)).max_attempts(1);
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(
        ends.all(),
        [true],
        "the order was dropped, the refund finished"
    );
    let letter = under_test.letter().await;
    assert_eq!(letter.detail, "the time limit of 50s passed");
}

/// Lets blocked handlers go on, at the latest when it is dropped: a runtime waits for their threads.
struct GoOn(Arc<AtomicBool>);

impl GoOn {
    fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for GoOn {
    fn drop(&mut self) {
        self.now();
    }
}

/// A worker with one slot whose handler blocks its thread until told.
async fn blocking(under_test: &QueueUnderTest) -> (WorkerHandle, Log<&'static str>, GoOn) {
    let (seen, go_on) = (Log::new(), Arc::new(AtomicBool::new(false)));
    let (log, told) = (seen.clone(), Arc::clone(&go_on));
    let runtime = std::thread::current().id();
    let function = move |_: Order, cx: Context| {
        assert_ne!(std::thread::current().id(), runtime, "off the runtime");
        log.add("started");
        let cancelled = cx.cancellation();
        let mut noticed = false;
        while !told.load(Ordering::Relaxed) {
            if cancelled.is_cancelled() && !noticed {
                noticed = true;
                log.add("cancelled");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        log.add("ended");
        Ok(())
    };
    let limit = Duration::from_millis(50);
    let router = Router::new().route(Route::blocking(function).time_limit(limit));
    let worker = under_test
        .worker(router)
        .concurrency(1)
        .stop_deadline(Duration::from_millis(50));
    (worker.start().await.unwrap(), seen, GoOn(go_on))
}

#[tokio::test]
async fn a_blocking_handler_past_its_limit_is_cancelled_keeps_its_slot_and_then_counts() {
    let under_test = QueueUnderTest::new();
    let (worker, seen, go_on) = blocking(&under_test).await;
    under_test.publish_orders([1, 2]).await;
    seen.reaches(2).await;
    assert_eq!(seen.all(), ["started", "cancelled"]);
    assert_eq!(
        under_test.counts().await,
        (1, 1, 0, 0),
        "one slot, one lock"
    );
    go_on.now();
    under_test.settled().await;
    assert_eq!(
        seen.all(),
        ["started", "cancelled", "ended", "started", "ended"]
    );
    worker.stop().await;
    assert_eq!(
        under_test.counts().await,
        (0, 0, 0, 0),
        "both counted as done"
    );
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_blocking_handler_beyond_its_deadline() {
    let under_test = QueueUnderTest::new();
    let (worker, seen, go_on) = blocking(&under_test).await;
    under_test.publish_orders([1]).await;
    seen.reaches(1).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(
        asked.elapsed() < Duration::from_millis(550),
        "{:?}",
        asked.elapsed()
    );
    seen.reaches(2).await;
    assert_eq!(seen.all(), ["started", "cancelled"]);
    assert_eq!(under_test.counts().await, (1, 0, 0, 0), "it comes back");
    go_on.now();
    seen.reaches(3).await;
    assert_eq!(
        under_test.counts().await,
        (1, 0, 0, 0),
        "a late end touches nothing"
    );
}

#[test]
fn a_blocking_handler_past_its_limit_before_a_thread_was_free_does_not_start() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_time()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let under_test = QueueUnderTest::new();
        let (seen, go_on) = (Log::new(), Arc::new(AtomicBool::new(false)));
        let (log, told) = (seen.clone(), Arc::clone(&go_on));
        let go_on = GoOn(go_on);
        let function = move |order: Order, cx: Context| {
            log.add((order.id, cx.attempt()));
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        let limit = Duration::from_millis(50);
        let router = Router::new().route(Route::blocking(function).time_limit(limit));
        let worker = under_test
            .worker(router)
            .backoff(quick())
            .start()
            .await
            .unwrap();
        under_test.publish_orders([1, 2]).await;
        seen.reaches(1).await;
        tokio::time::sleep(limit * 2).await;
        go_on.now();
        under_test.settled().await;
        worker.stop().await;
        assert_eq!(seen.all(), [(1, 1), (2, 2)]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_is_noticed_and_the_others_go_on() {
    let (under_test, refunds) = (QueueUnderTest::new(), Log::new());
    let (log, let_go) = (refunds.clone(), Arc::new(AtomicBool::new(false)));
    let blocked = Arc::clone(&let_go);
    let router = Router::new()
        .handle_fn(move |_: Order, _: Context| {
            let blocked = Arc::clone(&blocked);
            async move {
                while !blocked.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
        })
        .handle_fn(move |refund: Refund, _: Context| {
            let log = log.clone();
            async move {
                log.add(refund.order);
                Ok(())
            }
        });
    under_test.publish(&Order { id: 13 }).await;
    let worker = under_test.worker(router).start().await.unwrap();
    let is_blocked = |health: Health| match health {
        Health::NotReady(why) => why.contains("has blocked its thread for"),
        _ => false,
    };
    until("it is noticed", || is_blocked(worker.health())).await;
    for order in 0..50 {
        under_test.publish(&Refund { order }).await;
    }
    refunds.reaches(50).await;
    assert!(is_blocked(worker.health()));
    let_go.store(true, Ordering::SeqCst);
    under_test.settled().await;
    assert_eq!(worker.health(), Health::Ready);
    worker.stop().await;
}
