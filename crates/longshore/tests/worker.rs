//! What keeps a worker going, what makes it not-ready, and that one seed gives one history.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use longshore::{
    Backoff, Connect, Context, Draft, ErrorKind, HandlerError, Health, Queue, Router, SeededIds,
    SystemClock, Worker, WorkerHandle,
};
use queue_under_test::{Log, Order, QueueUnderTest, Refund, until};
use reading_ahead::{Faults, ReadingAhead};
use tokio::time::Instant;

type Seen = Log<(u64, u32)>;

/// Every order above 99 fails for good.
fn router(seen: &Seen) -> Router {
    let seen = seen.clone();
    Router::new().handle_fn(move |order: Order, cx: Context| {
        seen.add((order.id, cx.attempt()));
        std::future::ready(match order.id {
            0..100 => Ok(()),
            _ => Err(HandlerError::permanent("above 99")),
        })
    })
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

async fn becomes(worker: &WorkerHandle, what: &str) {
    until(what, || match worker.health() {
        Health::NotReady(why) => why.contains(what),
        _ => what == "ready",
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_ready_from_its_start_to_its_stop() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let worker = under_test.worker(router(&seen)).start().await.unwrap();
    assert_eq!(worker.health(), Health::Ready);
    worker.pause();
    becomes(&worker, "paused").await;
    worker.resume();
    becomes(&worker, "ready").await;
    assert!(format!("{worker:?}").contains("orders"));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_is_opened_again_and_nothing_is_charged_for_it() {
    let (under_test, faults) = reading_ahead();
    let (seen, log) = (Seen::new(), Seen::new());
    let starts = log.clone();
    let router = Router::new().handle_fn(move |order: Order, cx: Context| {
        let starts = starts.clone();
        async move {
            starts.add((order.id, cx.attempt()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!cx.cancellation().is_cancelled());
            Ok(())
        }
    });
    let worker = under_test
        .worker(router)
        .concurrency(2)
        .start()
        .await
        .unwrap();
    under_test.publish_orders([1, 2]).await;
    log.reaches(2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    under_test.publish_orders([3]).await;
    log.reaches(3).await;
    faults.ends.store(1, Ordering::SeqCst);
    under_test.publish_orders([4]).await;
    under_test.settled().await;
    assert_eq!(log.all(), [(1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(faults.subscribed.load(Ordering::SeqCst), 2);
    becomes(&worker, "ready").await;
    worker.stop().await;
    assert!(seen.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_ends_at_once_every_time_is_not_opened_in_a_loop() {
    let (under_test, faults) = reading_ahead();
    let seen = Seen::new();
    let worker = under_test.worker(router(&seen)).start().await.unwrap();
    faults.ends.store(1_000, Ordering::SeqCst);
    under_test.publish_orders([1]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let opened = faults.subscribed.load(Ordering::SeqCst);
    assert!((5..=25).contains(&opened), "{opened} times in a minute");
    assert!(matches!(worker.health(), Health::NotReady(why) if why.contains("ended by the test")));
    faults.ends.store(0, Ordering::SeqCst);
    under_test.settled().await;
    assert_eq!(seen.all(), [(1, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_makes_its_worker_not_ready_and_its_stop_is_quick() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let worker = under_test.worker(router(&seen)).start().await.unwrap();
    under_test.client.close().await;
    becomes(&worker, "closed").await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    let error = under_test.worker(router(&seen)).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn settlements_the_broker_cannot_take_are_repeated_until_it_can() {
    let (under_test, faults) = reading_ahead();
    let seen = Seen::new();
    Faults::set(&faults.settle, Some(ErrorKind::Unavailable));
    let worker = under_test.worker(router(&seen)).start().await.unwrap();
    under_test.publish_orders([1, 100]).await;
    seen.reaches(2).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(under_test.counts().await, (0, 2, 0, 0), "still ours");
    Faults::set(&faults.settle, None);
    let again = Instant::now();
    under_test.settled().await;
    assert!(
        again.elapsed() <= Duration::from_secs(11),
        "{:?}",
        again.elapsed()
    );
    worker.stop().await;
    assert_eq!(seen.len(), 2, "each ran once");
    assert_eq!(under_test.letters().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_whose_start_cannot_be_noted_waits_and_is_charged_nothing() {
    let (under_test, faults) = reading_ahead();
    let seen = Seen::new();
    let log = seen.clone();
    let router = Router::new().handle_fn(move |order: Order, cx: Context| {
        log.add((order.id, cx.attempt()));
        async move {
            if cx.attempt() == 1 {
                cx.cancellation().cancelled().await;
            }
            Ok(())
        }
    });
    let worker = under_test.worker(router).start().await.unwrap();
    Faults::set(&faults.start, Some(ErrorKind::Full));
    under_test.publish_orders([1]).await;
    seen.reaches(1).await;
    under_test.broker.lose_locks();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = faults.started.load(Ordering::SeqCst);
    assert!((30..=61).contains(&asked), "{asked} times in a minute");
    assert_eq!(seen.len(), 1, "it never starts unnoted");
    Faults::set(&faults.start, None);
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(seen.all(), [(1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn too_many_dead_letters_stop_the_taking_until_some_are_gone() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let worker = under_test.worker(router(&seen)).dead_letter_limit(3);
    let worker = worker.start().await.unwrap();
    under_test.publish_orders([100, 101, 102]).await;
    under_test.settled().await;
    becomes(&worker, "3 dead letters, the limit is 3").await;
    under_test.publish_orders([1]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seen.len(), 3, "nothing is taken");
    assert_eq!(under_test.counts().await, (1, 0, 0, 3));
    let dead = under_test.client.dead_letters(&under_test.queue);
    dead.discard(&dead.peek().await.unwrap().unwrap().id)
        .await
        .unwrap();
    let discarded = Instant::now();
    under_test.settled().await;
    assert!(
        discarded.elapsed() <= Duration::from_secs(5),
        "{:?}",
        discarded.elapsed()
    );
    becomes(&worker, "ready").await;
    worker.stop().await;
    assert_eq!(seen.all().last(), Some(&(1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_above_its_dead_letter_limit_takes_nothing() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let worker = under_test.worker(router(&seen)).start().await.unwrap();
    under_test.publish_orders([100, 101]).await;
    under_test.settled().await;
    worker.stop().await;
    under_test.publish_orders([1]).await;
    let worker = under_test.worker(router(&seen)).dead_letter_limit(1);
    let worker = worker.start().await.unwrap();
    assert!(matches!(worker.health(), Health::NotReady(_)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seen.len(), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_dead_letters_are_looked_at_also_while_other_settings_change() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let worker = under_test.worker(router(&seen)).dead_letter_limit(1);
    let worker = worker.start().await.unwrap();
    under_test.publish_orders([100]).await;
    under_test.settled().await;
    for second in 0..10 {
        worker.set_concurrency(10 + second);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(matches!(worker.health(), Health::NotReady(why) if why.contains("the limit is 1")));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_only_worker_wants_its_queue_to_be_there() {
    let (under_test, seen) = (QueueUnderTest::new(), Seen::new());
    let client = under_test.read_only_client();
    let worker = || Worker::new(&client, &under_test.queue, router(&seen));
    let error = worker().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchQueue);
    under_test.publish_orders([1]).await;
    let worker = worker().start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(seen.len(), 1);
}

/// Failures, delays, retries, panics and time limits, noted as they happen, with ids and times.
fn scenario(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let begun = Instant::now();
        let ids = Arc::new(SeededIds::new(seed));
        let connect = Connect::new("memory:").seams(Arc::new(SystemClock::new()), ids);
        let client = connect.open().await.unwrap();
        let (orders, events) = (Queue::new("orders"), Log::new());
        let log = events.clone();
        let refunds = orders.clone();
        let router = Router::new()
            .handle_fn(move |order: Order, cx: Context| {
                let (log, refunds) = (log.clone(), refunds.clone());
                async move {
                    let (id, attempt) = (order.id, cx.attempt());
                    log.add(format!("{:?} {id} {attempt} {}", begun.elapsed(), cx.id()));
                    match (id % 7, attempt) {
                        (1, 1) => return Err("once".into()),
                        (2, _) => panic!("always"),
                        (3, 1) => std::future::pending().await,
                        (4, _) => tokio::time::sleep(Duration::from_millis(id)).await,
                        (5, _) => cx.publish(&refunds, &Refund { order: id }).await?,
                        _ => {}
                    }
                    Ok(())
                }
            })
            .fallback({
                let log = events.clone();
                move |cx| {
                    log.add(format!("{:?} fallback {}", begun.elapsed(), cx.id()));
                    std::future::ready(Ok(longshore::Outcome::Complete))
                }
            });
        let worker = Worker::new(&client, &orders, router)
            .concurrency(5)
            .max_attempts(3)
            .backoff(Backoff::new(
                Duration::from_millis(20),
                Duration::from_secs(1),
            ))
            .time_limit(Duration::from_secs(1))
            .rate(500)
            .start()
            .await
            .unwrap();
        let drafts = (0..200)
            .map(|id| Draft::new(&Order { id }).delay(Duration::from_millis(id * 37 % 100)));
        for answer in client.publish_all(&orders, drafts).await {
            answer.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
        worker.stop().await;
        let letters = client
            .dead_letters(&orders)
            .list(None, 1_000)
            .await
            .unwrap();
        for letter in letters {
            events.add(format!(
                "{} {} {}",
                letter.envelope.id, letter.reason, letter.detail
            ));
        }
        events.all()
    })
}

#[test]
fn one_seed_gives_one_history() {
    let first = scenario(7);
    assert!(first.len() > 300, "{}", first.len());
    assert_eq!(first, scenario(7));
    assert_ne!(first, scenario(8));
}
