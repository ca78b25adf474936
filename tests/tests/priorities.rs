//! What is urgent waits for a free handler and for nothing else, on every transport.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{Client, Context, Draft, HandlerError, Queue, Router, Worker};
use longshore_testing::brokers;
use longshore_tests::{job::Job, unique, waiting::until};

/// The lanes of the starts so far, in order.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<String>>>);

impl Starts {
    fn router(&self, busy: Duration) -> Router {
        let starts = self.clone();
        Router::new().handle_fn(move |_: Job, cx: Context| {
            let lane = cx.envelope().priority.as_deref().unwrap_or("normal");
            starts.lanes().push(lane.to_owned());
            async move {
                tokio::time::sleep(busy).await;
                Ok::<_, HandlerError>(())
            }
        })
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reach(&self, starts: usize) {
        let what = format!("{starts} starts");
        until(&what, Duration::from_secs(120), async || {
            (self.lanes().len() >= starts).then_some(())
        })
        .await;
    }
}

async fn publish(client: &Client, queue: &Queue, lane: &'static str, count: u64) {
    let numbers: Vec<u64> = (0..count).collect();
    for batch in numbers.chunks(1_000) {
        let drafts = batch
            .iter()
            .map(|&number| Draft::new(&Job { number }).priority(lane));
        for answer in client.publish_all(queue, drafts).await {
            answer.unwrap();
        }
    }
}

/// 20,000 low ones are queued, 1,000 of them prefetched; 100 high ones come. Behind what is
/// prefetched they would wait for 1,000 starts.
async fn high_ones_start_at_once(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&unique("urgent")).lanes(["high", "low"]);
    publish(&client, &queue, "low", 20_000).await;
    let starts = Starts::default();
    let worker = Worker::new(&client, &queue, starts.router(Duration::from_millis(4)))
        .concurrency(8)
        .prefetch(1_000)
        // RabbitMQ before 3.12 takes back what is unsettled for 30 minutes.
        .time_limit(Duration::from_secs(1))
        .start()
        .await
        .unwrap();
    starts.reach(2_000).await;
    let before = starts.lanes().len();
    publish(&client, &queue, "high", 100).await;
    let last = until(
        "every high one has started",
        Duration::from_secs(60),
        async || {
            let lanes = starts.lanes();
            let high: Vec<usize> = (0..lanes.len()).filter(|&n| lanes[n] == "high").collect();
            (high.len() == 100).then(|| high[99])
        },
    )
    .await;
    let low = last + 1 - before - 100;
    println!("{low} low ones started from the publish of 100 high ones until the last of them had");
    assert!(low < 500, "{low} low ones started before the last high one");
    worker.stop().await;
}

/// All lanes have more than they can get rid of: each gets its share, also after a change.
async fn shares_follow_the_weights(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&unique("shares")).lanes(["high", "normal", "low"]);
    for lane in ["high", "normal", "low"] {
        publish(&client, &queue, lane, 4_000).await;
    }
    let starts = Starts::default();
    let worker = Worker::new(&client, &queue, starts.router(Duration::from_millis(2)))
        .concurrency(8)
        .weights([("high", 6), ("normal", 3), ("low", 1)])
        .start()
        .await
        .unwrap();
    starts.reach(2_200).await;
    let first = starts.lanes()[200..2_200].to_vec();
    worker.set_weights([("high", 1), ("normal", 1), ("low", 2)]);
    let from = starts.lanes().len() + 100;
    starts.reach(from + 1_000).await;
    let second = starts.lanes()[from..from + 1_000].to_vec();
    worker.stop().await;

    for (lanes, wanted) in [(first, [0.6, 0.3, 0.1]), (second, [0.25, 0.25, 0.5])] {
        let mut counts = BTreeMap::<&str, usize>::new();
        for lane in &lanes {
            *counts.entry(lane).or_default() += 1;
        }
        println!("{counts:?}");
        for (lane, wanted) in ["high", "normal", "low"].into_iter().zip(wanted) {
            let share = counts[lane] as f64 / lanes.len() as f64;
            assert!((share - wanted).abs() <= wanted * 0.1, "{lane}: {share}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_100_high_ones_start_before_20000_low_ones() {
    high_ones_start_at_once("memory:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_100_high_ones_start_before_20000_low_ones() {
    high_ones_start_at_once(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_100_high_ones_start_before_20000_low_ones() {
    high_ones_start_at_once(&brokers::redis_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_each_lane_gets_its_share() {
    shares_follow_the_weights("memory:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_each_lane_gets_its_share() {
    shares_follow_the_weights(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_each_lane_gets_its_share() {
    shares_follow_the_weights(&brokers::redis_url().unwrap()).await;
}
