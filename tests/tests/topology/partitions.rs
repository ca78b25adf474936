//! Publishers and workers that disagree on the number of partitions are told so.

use std::time::Duration;

use longshore::{ErrorKind, Queue};
use longshore_testing::brokers;
use longshore_tests::{job::Job, unique, waiting::until, witness::Witness};

use crate::differs::differs;

fn job(number: u64) -> Job {
    Job { number }
}

/// A worker is there with one number; whoever comes with another is refused, and told both.
async fn with_a_worker(url: &str) {
    let (client, other) = (longshore::connect(url), longshore::connect(url));
    let (client, other) = tokio::try_join!(client, other).unwrap();
    let name = unique("partitions");
    let four = Queue::new(&name).sessions(4);
    let witness = Witness::default();
    let worker = witness.worker(&client, &four, |_, _| Ok(())).await.unwrap();
    client.publish(&four, &job(1)).key("a").await.unwrap();
    witness.starts(1).await;
    for of in [1, 2, 8, 16] {
        differs(
            &other,
            &Queue::new(&name).sessions(of),
            &[&name, "4", &of.to_string()],
        )
        .await;
    }
    // Who agrees is not disturbed by it.
    other.publish(&four, &job(2)).key("a").await.unwrap();
    assert_eq!(witness.starts(2).await[1].number, 2);
    worker.stop().await;
}

/// Nobody works, and messages are left of an earlier number.
async fn with_messages_left(url: &str) {
    let [client, other, late] = [0, 1, 2].map(|_| longshore::connect(url));
    let (client, other, late) = tokio::try_join!(client, other, late).unwrap();
    let name = unique("left");
    let (two, four) = (Queue::new(&name).sessions(2), Queue::new(&name).sessions(4));
    client.publish(&four, &job(1)).key("a").await.unwrap();
    differs(&other, &two, &[&name, "4", "2"]).await;
    // Whoever still has the earlier number can empty it, and then it may change.
    let witness = Witness::default();
    let worker = witness.worker(&client, &four, |_, _| Ok(())).await.unwrap();
    witness.starts(1).await;
    until("nothing is left", Duration::from_secs(10), async || {
        (client.stats(&four).await.unwrap().ready == 0).then_some(())
    })
    .await;
    worker.stop().await;
    // It has left a moment after it has stopped.
    let worker = until(
        "the number is changed",
        Duration::from_secs(10),
        async || {
            let started = witness.worker(&other, &two, |_, _| Ok(())).await;
            started
                .map_err(|error| assert_eq!(error.kind(), ErrorKind::TopologyDiffers))
                .ok()
        },
    )
    .await;
    other.publish(&two, &job(2)).key("a").await.unwrap();
    witness.starts(2).await;
    // From here on the earlier number is the wrong one.
    differs(&late, &four, &[&name, "2", "4"]).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_while_somebody_works_on_rabbitmq() {
    with_a_worker(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_while_somebody_works_on_redis() {
    with_a_worker(&brokers::redis_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_while_messages_are_left_on_rabbitmq() {
    with_messages_left(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_while_messages_are_left_on_redis() {
    with_messages_left(&brokers::redis_url().unwrap()).await;
}
