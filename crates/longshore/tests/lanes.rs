//! Priority lanes: which message is next.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;
mod start_up_mistake;

use std::{sync::Arc, time::Duration};

use longshore::{
    Context, Draft, ErrorKind, HandlerError, Health, Queue, Router, Topic, Worker, WorkerHandle,
};
use longshore_core::Part;
use queue_under_test::{Log, Order, QueueUnderTest, until};
use reading_ahead::{Faults, ReadingAhead};
use start_up_mistake::mistake_in;
use tokio::sync::Semaphore;

const LANES: [&str; 3] = ["high", "normal", "low"];

/// A queue with three lanes, and handlers that run until they are let go.
struct Lanes {
    under_test: QueueUnderTest,
    faults: Arc<Faults>,
    /// The lane of every start.
    started: Log<String>,
    may_end: Arc<Semaphore>,
}

impl Lanes {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(longest_lock: Option<Duration>) -> Self {
        let mut faults = None;
        let mut under_test = QueueUnderTest::on(|inner| {
            let (transport, those) = ReadingAhead::with(longest_lock, inner);
            faults = Some(those);
            transport
        });
        under_test.queue = Queue::new("orders").lanes(LANES);
        Self {
            under_test,
            faults: faults.unwrap(),
            started: Log::new(),
            may_end: Arc::new(Semaphore::new(0)),
        }
    }

    async fn publish(&self, lane: &str, messages: u64) {
        let draft = |id| Draft::new(&Order { id }).priority(lane);
        let (client, queue) = (&self.under_test.client, &self.under_test.queue);
        for answer in client.publish_all(queue, (0..messages).map(draft)).await {
            answer.unwrap();
        }
    }

    fn worker(&self) -> Worker {
        let (started, may_end) = (self.started.clone(), Arc::clone(&self.may_end));
        let router = Router::new().handle_fn(move |_: Order, cx: Context| {
            let lane = cx.envelope().priority.as_deref().unwrap_or("normal");
            started.add(lane.to_owned());
            let may_end = Arc::clone(&may_end);
            async move {
                may_end.acquire().await.unwrap().forget();
                Ok::<_, HandlerError>(())
            }
        });
        self.under_test.worker(router)
    }

    /// Lets this many handlers end, and waits until as many others have started.
    async fn let_go(&self, handlers: usize) {
        let started = self.started.len();
        self.may_end.add_permits(handlers);
        self.started.reaches(started + handlers).await;
    }

    async fn finish(&self, worker: WorkerHandle) {
        self.may_end.add_permits(1_000_000);
        self.under_test.settled().await;
        worker.stop().await;
    }

    /// How many of the starts from this one on were of each lane.
    fn shares(&self, from: usize) -> [usize; 3] {
        let started = self.started.all();
        LANES.map(|lane| started[from..].iter().filter(|l| *l == lane).count())
    }
}

async fn urgent_messages_wait_for_nothing_but_a_slot() {
    let lanes = Lanes::new();
    lanes.publish("low", 20_000).await;
    let worker = lanes.worker().concurrency(4).prefetch(1_000);
    let worker = worker.start().await.unwrap();
    lanes.started.reaches(4).await;
    until("four run", || worker.figures().running == 4).await;
    let figures = worker.figures();
    let taken: Vec<_> = figures
        .lanes
        .iter()
        .map(|(n, taken)| (&**n, *taken))
        .collect();
    assert_eq!(taken, [("high", 0), ("normal", 0), ("low", 4)]);
    assert_eq!((figures.started, figures.completed), (4, 0));
    lanes.let_go(16).await;
    let (ready, in_flight, ..) = lanes.under_test.counts().await;
    assert_eq!(in_flight, 1_000, "prefetched; {ready} left");
    lanes.publish("high", 100).await;
    lanes.let_go(100).await;
    assert_eq!(lanes.shares(20), [100, 0, 0]);
    // The most urgent first, whatever comes in between.
    lanes.publish("normal", 50).await;
    lanes.let_go(20).await;
    lanes.publish("high", 10).await;
    lanes.let_go(40).await;
    assert_eq!(lanes.shares(120), [10, 50, 0]);
    lanes.let_go(1).await;
    assert_eq!(lanes.shares(180), [0, 0, 1]);
    lanes.may_end.add_permits(1_000_000);
    lanes.under_test.settled().await;
    until("all are counted", || worker.figures().completed == 20_160).await;
    let figures = worker.figures();
    assert_eq!((figures.running, figures.started), (0, 20_160));
    worker.stop().await;
    assert_eq!(lanes.shares(0), [110, 50, 20_000]);
}

#[tokio::test]
async fn a_high_message_never_waits_for_prefetched_low_ones() {
    urgent_messages_wait_for_nothing_but_a_slot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_high_message_never_waits_for_prefetched_low_ones_with_two_drivers() {
    urgent_messages_wait_for_nothing_but_a_slot().await;
}

fn close_to(shares: [usize; 3], weights: [usize; 3]) {
    let (all, total): (usize, usize) = (shares.iter().sum(), weights.iter().sum());
    for (share, weight) in shares.iter().zip(weights) {
        let due = (all * weight) as f64 / total as f64;
        let off = (*share as f64 - due).abs();
        assert!(off <= due / 10.0, "{shares:?} for {weights:?}");
    }
}

#[tokio::test]
async fn backlogged_lanes_share_the_starts_by_weight_also_after_it_was_changed() {
    let lanes = Lanes::new();
    for lane in LANES {
        lanes.publish(lane, 4_000).await;
    }
    let worker = lanes.worker().concurrency(8);
    let worker = worker.weights([("low", 1), ("high", 8), ("normal", 3)]);
    let worker = worker.start().await.unwrap();
    lanes.started.reaches(8).await;
    lanes.let_go(2_400 - 8).await;
    close_to(lanes.shares(0), [8, 3, 1]);
    worker.set_weights([("high", 1), ("normal", 1), ("low", 10)]);
    lanes.let_go(2_400).await;
    close_to(lanes.shares(2_400), [1, 1, 10]);
    lanes.finish(worker).await;
    assert_eq!(lanes.shares(0), [4_000; 3]);
}

#[tokio::test]
async fn the_share_of_an_empty_lane_goes_to_the_others_and_none_starves() {
    let lanes = Lanes::new();
    lanes.publish("normal", 2_000).await;
    lanes.publish("low", 2_000).await;
    let worker = lanes.worker().concurrency(8);
    let worker = worker.weights([("high", 1_000), ("normal", 3), ("low", 1)]);
    let worker = worker.start().await.unwrap();
    lanes.started.reaches(8).await;
    lanes.let_go(800 - 8).await;
    close_to(lanes.shares(0), [0, 3, 1]);
    lanes.publish("high", 1_000).await;
    lanes.let_go(1_500).await;
    assert_eq!(lanes.shares(800)[0], 1_000, "its weight is above all");
    lanes.finish(worker).await;
    assert_eq!(lanes.shares(0), [1_000, 2_000, 2_000]);
}

#[tokio::test]
async fn normal_left_out_is_the_last_lane_and_a_topic_finds_the_lanes_of_its_queues() {
    let mut lanes = Lanes::new();
    let topic = Topic::new("order.placed");
    lanes.under_test.queue = Queue::new("orders").lanes(["high"]).subscribe_to(&topic);
    let client = &lanes.under_test.client;
    client.declare(&lanes.under_test.queue).await.unwrap();
    for priority in ["normal", "urgent", "high"] {
        let publish = client.publish(&topic, &Order { id: 1 });
        publish.priority(priority).await.unwrap();
    }
    let worker = lanes.worker().concurrency(1).start().await.unwrap();
    lanes.finish(worker).await;
    assert_eq!(lanes.started.all(), ["high", "normal", "urgent"]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_in_trouble_does_not_stop_the_others_and_comes_back() {
    let lanes = Lanes::new();
    lanes.may_end.add_permits(1_000_000);
    let worker = lanes.worker().start().await.unwrap();
    *lanes.faults.unavailable.lock().unwrap() = Some(Part::Lane(1));
    // The first to be asked ends, which is the most urgent.
    lanes
        .faults
        .ends
        .store(1, std::sync::atomic::Ordering::SeqCst);
    lanes.publish("low", 10).await;
    until("not ready", || {
        matches!(worker.health(), Health::NotReady(_))
    })
    .await;
    lanes.publish("high", 10).await;
    lanes.publish("normal", 10).await;
    lanes.started.reaches(20).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lanes.shares(0), [0, 10, 10]);
    *lanes.faults.unavailable.lock().unwrap() = None;
    lanes.started.reaches(30).await;
    until("ready", || worker.health() == Health::Ready).await;
    assert_eq!(lanes.shares(0), [10; 3]);
    lanes.finish(worker).await;
}

#[tokio::test(start_paused = true)]
async fn what_strict_priority_keeps_from_running_goes_back_before_the_broker_takes_it() {
    let lanes = Lanes::with(Some(Duration::from_secs(3_600)));
    let worker = lanes
        .worker()
        .concurrency(1)
        .prefetch(10)
        .time_limit(Duration::from_secs(1_800));
    let worker = worker.start().await.unwrap();
    // The source reads ten, of which one runs.
    lanes.publish("low", 20).await;
    lanes.started.reaches(1).await;
    lanes.publish("high", 200).await;
    let released = || {
        let settled = lanes.faults.settlements();
        settled
            .iter()
            .filter(|verdict| verdict.starts_with("Release"))
            .count()
    };
    for minute in 1..=150 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        lanes.let_go(1).await;
        assert_eq!(released(), if minute < 30 { 0 } else { 9 }, "{minute}");
    }
    assert_eq!(lanes.shares(1), [150, 0, 0]);
    lanes.finish(worker).await;
    assert_eq!(lanes.shares(0), [200, 0, 20]);
    assert!(lanes.under_test.letters().await.is_empty());
}

#[tokio::test]
async fn a_time_limit_that_leaves_no_time_to_wait_is_refused() {
    let lanes = Lanes::with(Some(Duration::from_secs(100)));
    let worker = lanes.worker().time_limit(Duration::from_secs(51));
    let refused = worker.start().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("50s"), "{refused}");
    let worker = lanes.worker().time_limit(Duration::from_secs(50));
    lanes.finish(worker.start().await.unwrap()).await;
}

#[tokio::test]
async fn weights_that_do_not_fit_are_refused_at_the_callers_line() {
    let lanes = Lanes::new();
    for (weights, says) in [
        (vec![("high", 1), ("low", 1)], "\"normal\" has no weight"),
        (vec![("urgent", 1)], "no lane \"urgent\""),
        (vec![("high", 0)], "between 1 and 1000; got 0"),
        (vec![("high", 1_001)], "between 1 and 1000; got 1001"),
        (vec![("high", 1), ("high", 1)], "two weights"),
    ] {
        let worker = lanes.worker();
        let line = line!() + 1;
        let mistake = mistake_in(|| worker.weights(weights.clone()));
        assert!(mistake.text.contains(says), "{mistake:?}");
        assert_mistake!(line, mistake, "lane");
        let worker = lanes.worker().start().await.unwrap();
        let line = line!() + 1;
        let mistake = mistake_in(|| worker.set_weights(weights));
        assert!(mistake.text.contains(says), "{mistake:?}");
        assert_mistake!(line, mistake, "lane");
        worker.stop().await;
    }
}
