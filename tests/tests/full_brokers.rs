//! Brokers out of memory or disk: publishes are refused or unknown, settlements go on, nothing is lost.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use longshore::{
    Connect, Context, Draft, ErrorKind, HandlerError, Outcome, Queue, Reason, Router, Worker,
};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{
    job::{Job, publish_jobs},
    load::Handled,
    unique,
    waiting::until,
};

async fn alarm(raise: &[&str], clear: &[&str]) {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let open = || {
        Connect::new(broker.url())
            .confirm_timeout(Duration::from_secs(3))
            .open()
    };
    let (publishing, working) = (open().await.unwrap(), open().await.unwrap());
    let queue = Queue::new(&unique("alarm"));
    publish_jobs(&publishing, &queue, 2_000).await.unwrap();
    broker.rabbitmqctl(raise).await.unwrap();

    // The first publish shows this connection to the broker, which then blocks it.
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        let error = publishing
            .publish(&queue, &Job { number: 9_999 })
            .await
            .unwrap_err();
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        kinds.push(error.kind());
    }
    println!("publishing during the alarm: {kinds:?}");
    assert!(
        matches!(kinds[0], ErrorKind::Unknown | ErrorKind::Full),
        "{kinds:?}"
    );
    assert_eq!(
        kinds[1],
        ErrorKind::Full,
        "nothing was written, and that is known"
    );

    let handled = Handled::default();
    let worker = handled
        .worker(&working, &queue, Duration::ZERO)
        .await
        .unwrap();
    until(
        "the backlog is handled during the alarm",
        Duration::from_secs(30),
        async || (handled.count() >= 2_000).then_some(()),
    )
    .await;
    until(
        "the broker has the acknowledgements",
        Duration::from_secs(10),
        async || {
            let listed = broker
                .rabbitmqctl(&["list_queues", "--silent", "name", "messages"])
                .await
                .ok()?;
            let line = listed
                .lines()
                .find(|line| line.starts_with(&format!("{}\t", queue.name())))?;
            line.ends_with("\t0").then_some(())
        },
    )
    .await;
    broker.rabbitmqctl(clear).await.unwrap();
    until(
        "publishing works again",
        Duration::from_secs(20),
        async || {
            publishing
                .publish(&queue, &Job { number: 10_000 })
                .await
                .ok()
        },
    )
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_rabbitmq_memory_alarm_acknowledgements_keep_flowing() {
    alarm(
        &["set_vm_memory_high_watermark", "absolute", "1MB"],
        &["set_vm_memory_high_watermark", "0.6"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_rabbitmq_disk_alarm_acknowledgements_keep_flowing() {
    alarm(
        &["set_disk_free_limit", "100000000000000"],
        &["set_disk_free_limit", "50000000"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_out_of_memory_refuses_publishes_and_still_settles_everything() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let queue = Queue::new(&unique("full"));
    publish_jobs(&client, &queue, 3_000).await.unwrap();
    broker
        .redis_command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await
        .unwrap();
    broker
        .redis_command(&["CONFIG", "SET", "maxmemory", "1mb"])
        .await
        .unwrap();

    let error = client
        .publish(&queue, &Job { number: 9_999 })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let delayed = Draft::new(&Job { number: 9_999 }).delay(Duration::from_secs(1));
    let error = client
        .publish_all(&queue, [delayed])
        .await
        .pop()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");

    // A third completes, a third is retried, a third is dead-lettered.
    let router = Router::new().handle_fn(|job: Job, cx: Context| async move {
        match (job.number % 3, cx.attempt()) {
            (0, _) | (1, 2..) => Ok::<_, HandlerError>(Outcome::Complete),
            (1, _) => Err("once more".into()),
            _ => Ok(Outcome::DeadLetter {
                reason: Reason::Permanent,
                detail: "on purpose".into(),
            }),
        }
    });
    let worker = Worker::new(&client, &queue, router).start().await.unwrap();
    until(
        "everything is settled",
        Duration::from_secs(60),
        async || {
            let stats = client.stats(&queue).await.ok()?;
            let left = stats.ready + stats.in_flight? + stats.delayed?;
            (left == 0 && stats.dead == 1_000).then_some(())
        },
    )
    .await;
    broker
        .redis_command(&["CONFIG", "SET", "maxmemory", "0"])
        .await
        .unwrap();
    client.publish(&queue, &Job { number: 0 }).await.unwrap();
    worker.stop().await;
}

/// RabbitMQ 3.10 tells the channels that were refused nothing when an operator lifts the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_length_limit_is_lifted_takes_messages_again() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let queue = Queue::new(&unique("limit"));
    client.declare(&queue).await.unwrap();
    let limit = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let set = ["set_policy", "full", "limit", limit, "--apply-to", "queues"];
    broker.rabbitmqctl(&set).await.unwrap();
    until(
        "a publish is refused",
        Duration::from_secs(20),
        async || {
            let refused = client.publish(&queue, &Job { number: 1 }).await.err()?;
            (refused.kind() == ErrorKind::Full).then_some(())
        },
    )
    .await;
    broker.rabbitmqctl(&["clear_policy", "full"]).await.unwrap();
    until(
        "publishing works again",
        Duration::from_secs(20),
        async || client.publish(&queue, &Job { number: 2 }).await.ok(),
    )
    .await;
}
