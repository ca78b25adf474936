//! Partitions spread evenly over the live workers, and again whenever one comes, goes or dies.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use longshore::{Client, Connect, Context, HandlerError, Queue, Router, Worker, WorkerHandle};
use longshore_testing::brokers;
use longshore_tests::{step::Step, unique, waiting::until};

const LOCK: Duration = Duration::from_secs(2);

async fn worker(client: &Client, queue: &Queue) -> WorkerHandle {
    let router = Router::new().handle_fn(|_: Step, _: Context| async { Ok::<_, HandlerError>(()) });
    let worker = Worker::new(client, queue, router).lock(LOCK);
    worker.start().await.unwrap()
}

/// Waits until the workers own so many partitions each, in any order, and all of them together.
async fn owned(workers: &[&WorkerHandle], wanted: &[usize]) -> Duration {
    let begun = Instant::now();
    let what = format!("the workers own {wanted:?}");
    // 10 s after the broker knows: a death it knows after a lock.
    until(&what, Duration::from_secs(10) + LOCK, async || {
        let all = workers.iter().map(|w| w.figures().partitions.len());
        let mut all: Vec<usize> = all.collect();
        all.sort_unstable();
        (all == wanted).then_some(())
    })
    .await;
    begun.elapsed()
}

async fn spread(url: &str) {
    let connect = || Connect::new(url).heartbeat(Duration::from_secs(2)).open();
    let queue = Queue::new(&unique("balance")).sessions(16);
    let clients = [
        connect().await.unwrap(),
        connect().await.unwrap(),
        connect().await.unwrap(),
    ];
    let one = worker(&clients[0], &queue).await;
    let alone = owned(&[&one], &[16]).await;
    let two = worker(&clients[1], &queue).await;
    let joined = owned(&[&one, &two], &[8, 8]).await;
    let three = worker(&clients[2], &queue).await;
    let again = owned(&[&one, &two, &three], &[5, 5, 6]).await;
    // As the death of its process: no partition is given back.
    clients[2].close().await;
    let died = owned(&[&one, &two], &[8, 8]).await;
    two.stop().await;
    let left = owned(&[&one], &[16]).await;
    println!(
        "first {alone:.1?}, second {joined:.1?}, third {again:.1?}, death {died:.1?}, leaving {left:.1?}"
    );
    one.stop().await;
    drop(three);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_partitions_are_even_again_within_10_s() {
    spread(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_partitions_are_even_again_within_10_s() {
    spread(&brokers::redis_url().unwrap()).await;
}
