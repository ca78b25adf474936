//! Sessions while the broker refuses, forgets or does not answer.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use longshore::{
    Backoff, Context, Draft, ErrorKind, HandlerError, Health, Queue, Router, Worker, WorkerHandle,
};
use longshore_core::Part;
use queue_under_test::{Log, Order, QueueUnderTest, until};
use reading_ahead::{Faults, ReadingAhead};
use tokio::time::Instant;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A queue with sessions on a broker that fails on request.
struct Sessions {
    under_test: QueueUnderTest,
    faults: Arc<Faults>,
    /// Key, id and attempt of every start.
    started: Log<(String, u64, u32)>,
}

impl Sessions {
    fn new(partitions: u16) -> Self {
        let mut faults = None;
        let mut under_test = QueueUnderTest::on(|inner| {
            let (transport, those) = ReadingAhead::over(inner);
            faults = Some(those);
            transport
        });
        under_test.queue = Queue::new("orders").sessions(partitions);
        Self {
            under_test,
            faults: faults.unwrap(),
            started: Log::new(),
        }
    }

    async fn publish(&self, key: &str, ids: impl IntoIterator<Item = u64>) {
        let draft = |id| Draft::new(&Order { id }).key(key.to_owned());
        let (client, queue) = (&self.under_test.client, &self.under_test.queue);
        for answer in client.publish_all(queue, ids.into_iter().map(draft)).await {
            answer.unwrap();
        }
    }

    /// Handlers take this long; the first start of an id above 1,000 fails.
    fn worker(&self, takes: Duration) -> Worker {
        let started = self.started.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            let key = cx.key().unwrap().to_owned();
            started.add((key, order.id, cx.attempt()));
            async move {
                let lost = cx.cancellation();
                tokio::select! {
                    () = tokio::time::sleep(takes) => {}
                    () = lost.cancelled() => return Err(HandlerError::from("cancelled")),
                }
                match order.id > 1_000 && cx.attempt() == 1 {
                    true => Err(HandlerError::from("once")),
                    false => Ok(()),
                }
            }
        });
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        self.under_test.worker(router).backoff(backoff)
    }

    async fn start(&self, takes: Duration) -> WorkerHandle {
        self.worker(takes).start().await.unwrap()
    }

    fn of(&self, key: &str) -> Vec<(u64, u32)> {
        let started = self.started.all().into_iter();
        let of_key = started.filter(|(k, ..)| k == key);
        of_key.map(|(_, id, attempt)| (id, attempt)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_message_of_a_session_waits_until_the_settlement_is_confirmed() {
    let sessions = Sessions::new(2);
    let worker = sessions.start(Duration::ZERO).await;
    Faults::set(&sessions.faults.settle, Some(ErrorKind::Unavailable));
    sessions.publish("a", 1..=2).await;
    sessions.publish("b", 1..=2).await;
    sessions.started.reaches(2).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(sessions.of("a"), [(1, 1)]);
    assert_eq!(sessions.of("b"), [(1, 1)]);
    Faults::set(&sessions.faults.settle, None);
    sessions.under_test.settled().await;
    assert_eq!(sessions.of("a"), [(1, 1), (2, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_came_too_late_starts_its_partition_anew() {
    let sessions = Sessions::new(1);
    let worker = sessions.start(Duration::ZERO).await;
    sessions.publish("a", 1..=3).await;
    sessions.under_test.settled().await;
    let token = worker.figures().partitions[0].token;
    Faults::set(&sessions.faults.settle, Some(ErrorKind::Stale));
    sessions.publish("a", 4..=6).await;
    sessions.started.reaches(4).await;
    until("stale", || worker.figures().stale > 0).await;
    Faults::set(&sessions.faults.settle, None);
    sessions.under_test.settled().await;
    let started = sessions.of("a");
    assert_eq!(started[..4], [(1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(started[4].0, 4, "never 5 before 4 is settled: {started:?}");
    assert!(started[4].1 > 1, "{started:?}");
    assert_eq!(started.last().unwrap().0, 6);
    assert!(worker.figures().partitions[0].token > token);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_source_ended_is_taken_again_once_its_handlers_have() {
    let sessions = Sessions::new(1);
    let worker = sessions.start(secs(5)).await;
    sessions.publish("a", 1..=3).await;
    sessions.started.reaches(1).await;
    sessions.faults.ends.store(1, Ordering::SeqCst);
    sessions.publish("b", 1..=3).await;
    sessions.under_test.settled().await;
    let started: Vec<u64> = sessions.of("a").into_iter().map(|(id, _)| id).collect();
    assert_eq!(started, [1, 1, 2, 3]);
    assert_eq!(
        sessions.faults.subscribed.load(Ordering::SeqCst),
        3,
        "the plain queue, and twice"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_opened_makes_the_worker_not_ready_and_stops_no_other() {
    let sessions = Sessions::new(2);
    let closed = Part::Partition { index: 0, of: 2 };
    *sessions.faults.unavailable.lock().unwrap() = Some(closed);
    let worker = sessions.start(Duration::ZERO).await;
    let of = |index| {
        let keys = (0..).map(|n| format!("key-{n}"));
        let fits = |k: &String| longshore_core::partition_of(&k.as_str().into(), 2) == index;
        keys.into_iter().find(fits).unwrap()
    };
    sessions.publish(&of(0), 1..=2).await;
    sessions.publish(&of(1), 1..=2).await;
    sessions.started.reaches(2).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(sessions.of(&of(1)), [(1, 1), (2, 1)]);
    assert_eq!(sessions.of(&of(0)), []);
    until("not ready", || {
        matches!(worker.health(), Health::NotReady(_))
    })
    .await;
    *sessions.faults.unavailable.lock().unwrap() = None;
    let mended = Instant::now();
    sessions.under_test.settled().await;
    assert!(mended.elapsed() <= secs(6), "{:?}", mended.elapsed());
    until("ready", || worker.health() == Health::Ready).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_the_broker_could_not_note_waits_and_keeps_its_number() {
    let sessions = Sessions::new(1);
    let worker = sessions.start(Duration::ZERO).await;
    Faults::set(&sessions.faults.start, Some(ErrorKind::Full));
    sessions.publish("a", [1_001, 1_002]).await;
    sessions.publish("b", 1..=3).await;
    sessions.started.reaches(4).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(sessions.of("a"), [(1_001, 1)]);
    assert_eq!(sessions.of("b"), [(1, 1), (2, 1), (3, 1)]);
    let asked = sessions.faults.started.load(Ordering::SeqCst);
    assert!((30..=61).contains(&asked), "{asked} times in a minute");
    Faults::set(&sessions.faults.start, None);
    sessions.under_test.settled().await;
    assert_eq!(
        sessions.of("a"),
        [(1_001, 1), (1_001, 2), (1_002, 1), (1_002, 2)]
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn starts_keep_to_the_rate_and_run_side_by_side() {
    let sessions = Sessions::new(4);
    for n in 0..50 {
        sessions.publish(&format!("key-{n}"), 1..=2).await;
    }
    let begun = Instant::now();
    let worker = sessions.worker(secs(3)).rate(10).start().await.unwrap();
    sessions.under_test.settled().await;
    let took = begun.elapsed();
    assert!(
        (secs(9)..secs(16)).contains(&took),
        "100 starts took {took:?}"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_broker_that_does_not_answer() {
    let sessions = Sessions::new(2);
    let worker = sessions.worker(secs(1)).stop_deadline(secs(2));
    let worker = worker.start().await.unwrap();
    sessions.publish("a", 1..=3).await;
    sessions.started.reaches(1).await;
    sessions.faults.silent.store(true, Ordering::SeqCst);
    tokio::time::sleep(secs(2)).await;
    let asked = Instant::now();
    worker.stop().await;
    let took = asked.elapsed();
    assert!(took <= Duration::from_millis(2_500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_into_its_partition_waits_in_its_order() {
    let sessions = Sessions::new(2);
    let worker = sessions.start(Duration::ZERO).await;
    Faults::set(&sessions.faults.publish, Some(ErrorKind::Unavailable));
    let (plain, client) = (Queue::new("orders"), sessions.under_test.another_client());
    for id in 1..=3 {
        let publish = client.publish(&plain, &Order { id }).key("a");
        publish.await.unwrap();
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(sessions.of("a"), []);
    let (ready, in_flight, delayed, dead) = sessions.under_test.counts().await;
    assert_eq!((ready + in_flight, delayed, dead), (3, 0, 0));
    assert!(matches!(worker.health(), Health::NotReady(_)));
    Faults::set(&sessions.faults.publish, None);
    sessions.under_test.settled().await;
    assert_eq!(sessions.of("a"), [(1, 1), (2, 1), (3, 1)]);
    worker.stop().await;
}
