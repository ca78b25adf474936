//! A message to a topic reaches every queue bound to it.

use std::time::Duration;

use longshore::{ErrorKind, HandlerError, Queue, Topic};
use longshore_testing::brokers;
use longshore_tests::{
    job::Job,
    unique,
    waiting::until,
    witness::{Witness, dead},
};

async fn fan_out(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let topic = Topic::new(&unique("placed"));
    let lonely = client
        .publish(&topic, &Job { number: 0 })
        .await
        .expect_err("no queue is bound");
    assert_eq!(lonely.kind(), ErrorKind::NoSuchQueue, "{lonely}");

    let queue = || Queue::new(&unique("bound")).subscribe_to(&topic);
    let mut queues = vec![queue(), queue(), queue()];
    for queue in &queues {
        client.declare(queue).await.unwrap();
    }
    client
        .publish(&topic, &Job { number: 1 })
        .id("first")
        .header("tenant", "blue")
        .await
        .unwrap();
    queues.push(queue());
    client.declare(&queues[3]).await.unwrap();
    client
        .publish(&topic, &Job { number: 2 })
        .id("second")
        .await
        .unwrap();

    for (n, queue) in queues.iter().enumerate() {
        let expected: &[&str] = if n < 3 {
            &["first", "second"]
        } else {
            &["second"]
        };
        let witness = Witness::default();
        let worker = witness.worker(&client, queue, |_, _| Ok(())).await.unwrap();
        let seen = witness.starts(expected.len()).await;
        worker.stop().await;
        let mut ids: Vec<_> = seen
            .iter()
            .map(|sight| sight.envelope.id.to_string())
            .collect();
        ids.sort();
        assert_eq!(ids, expected, "queue {n}");
        let first = seen.iter().find(|sight| sight.number == 1);
        assert!(first.is_none_or(|sight| sight.envelope.header("tenant") == Some("blue")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_topic_on_rabbitmq_reaches_every_queue_bound_before() {
    fan_out(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_topic_on_redis_reaches_every_queue_bound_before() {
    fan_out(&brokers::redis_url().unwrap()).await;
}

/// One queue's failure and redrive is nobody else's business.
async fn copies_are_independent(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let topic = Topic::new(&unique("placed"));
    let queues = [0, 1].map(|n| Queue::new(&unique(&format!("copy{n}"))).subscribe_to(&topic));
    for queue in &queues {
        client.declare(queue).await.unwrap();
    }
    client.publish(&topic, &Job { number: 1 }).await.unwrap();
    let (failing, fine) = (Witness::default(), Witness::default());
    let workers = [
        failing
            .worker(&client, &queues[0], |_, _| {
                Err(HandlerError::permanent("no"))
            })
            .await
            .unwrap(),
        fine.worker(&client, &queues[1], |_, _| Ok(()))
            .await
            .unwrap(),
    ];
    let letter = dead(&client, &queues[0], 1).await.remove(0);
    client
        .dead_letters(&queues[0])
        .redrive(&letter.id)
        .await
        .unwrap();
    failing.starts(2).await;
    dead(&client, &queues[0], 1).await;
    until(
        "the other queue is empty",
        Duration::from_secs(10),
        async || {
            let stats = client.stats(&queues[1]).await.ok()?;
            (stats.ready == 0 && stats.dead == 0).then_some(())
        },
    )
    .await;
    assert_eq!(fine.seen().len(), 1);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copies_of_a_topic_fail_and_come_back_independently_on_rabbitmq() {
    copies_are_independent(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copies_of_a_topic_fail_and_come_back_independently_on_redis() {
    copies_are_independent(&brokers::redis_url().unwrap()).await;
}
