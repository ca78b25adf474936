//! Queues are declared once, verified without being touched, and kept apart.

use std::{sync::Arc, time::Duration};

use longshore_core::{Declare, ErrorKind, Name, Subscription, Topology};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, message, number, numbered, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    declaring_a_queue_twice_changes_nothing,
    verifying_creates_nothing_and_refuses_what_is_missing,
    verifying_accepts_what_was_declared,
    subscribing_creates_a_missing_queue_only_where_it_may,
    a_prefetch_of_zero_is_refused,
    every_name_the_rules_allow_is_a_queue,
    queues_are_kept_apart,
    partitions_are_declared_or_clearly_refused,
];

async fn declaring_a_queue_twice_changes_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("kept"))]).await;
    stage.declare(&topology).await;
    let other = stage.open().await;
    let again = other.declare(&topology, Declare::Create).await;
    again.must("declaring again from another process");
    let mut consumer = Consumer::of(&stage, &topology).await;
    let kept = consumer.next().await;
    assert_eq!(&kept.envelope.body[..], b"kept");
    consumer.complete(kept).await;
    consumer.silent(SILENCE).await;
}

async fn verifying_creates_nothing_and_refuses_what_is_missing(stage: Arc<Stage>) {
    let topology = Topology::new(stage.name());
    for _ in 0..2 {
        let error = stage.transport.declare(&topology, Declare::Verify).await;
        let error = error.err().must("verifying a missing queue is an error");
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
        assert!(
            error.to_string().contains(topology.queue.as_str()),
            "{error}"
        );
    }
    let mut answers = stage
        .transport
        .publish(vec![to(&topology, message(""))])
        .await;
    let error = answers
        .pop()
        .must("an answer")
        .err()
        .must("nothing was created");
    assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
}

async fn verifying_accepts_what_was_declared(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let other = stage.open().await;
    let verified = other.declare(&topology, Declare::Verify).await;
    verified.must("verifying a queue that is there");
    let verified = Subscription {
        declare: Declare::Verify,
        ..subscription(&stage, &topology)
    };
    let mut consumer = Consumer::on(&*other, verified).await;
    stage.publish(vec![to(&topology, message("seen"))]).await;
    let seen = consumer.next().await;
    consumer.complete(seen).await;
}

async fn subscribing_creates_a_missing_queue_only_where_it_may(stage: Arc<Stage>) {
    let topology = Topology::new(stage.name());
    let verified = Subscription {
        declare: Declare::Verify,
        ..subscription(&stage, &topology)
    };
    let error = stage.transport.subscribe(verified).await.err();
    let error = error.must("subscribing to a missing queue under Verify is an error");
    assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    let mut consumer = Consumer::of(&stage, &topology).await;
    stage.publish(vec![to(&topology, message("created"))]).await;
    let created = consumer.next().await;
    consumer.complete(created).await;
}

async fn a_prefetch_of_zero_is_refused(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let nothing = Subscription {
        prefetch: 0,
        ..subscription(&stage, &topology)
    };
    let error = stage.transport.subscribe(nothing).await.err();
    let error = error.must("a prefetch of 0 means no limit on some brokers and must be refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

async fn every_name_the_rules_allow_is_a_queue(stage: Arc<Stage>) {
    let base = stage.name();
    let longest = format!("{base}.{}", "x".repeat(127 - base.len()));
    let odd = [
        format!("{base}.a.B_c-9"),
        format!("-{base}-"),
        format!("{base}.."),
    ];
    for name in [longest].into_iter().chain(odd) {
        let topology = Topology::new(Name::new(&name).must("a name"));
        stage.declare(&topology).await;
        stage
            .publish(vec![to(&topology, message(name.clone()))])
            .await;
        let mut consumer = Consumer::of(&stage, &topology).await;
        let arrived = consumer.next().await;
        assert_eq!(&arrived.envelope.body[..], name.as_bytes());
        consumer.complete(arrived).await;
    }
}

async fn queues_are_kept_apart(stage: Arc<Stage>) {
    let mut queues = Vec::new();
    for _ in 0..4 {
        queues.push(stage.queue().await);
    }
    let batches = queues.iter().enumerate();
    let outgoing = batches.flat_map(|(at, queue)| all_to(queue, numbered(at * 10..at * 10 + 10)));
    stage.publish(outgoing.collect()).await;
    let mut consumers = Vec::new();
    for queue in &queues {
        consumers.push(Consumer::of(&stage, queue).await);
    }
    for (at, consumer) in consumers.iter_mut().enumerate() {
        let mut numbers: Vec<_> = consumer
            .drain(10)
            .await
            .iter()
            .map(|d| number(&d.envelope))
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (at * 10..at * 10 + 10).collect::<Vec<_>>());
        consumer.silent(Duration::from_millis(200)).await;
    }
}

async fn partitions_are_declared_or_clearly_refused(stage: Arc<Stage>) {
    let mut topology = Topology::new(stage.name());
    topology.partitions = 4;
    let declared = stage.transport.declare(&topology, Declare::Create).await;
    if stage.transport.capabilities().partitions {
        declared.must("declaring partitions");
        let verified = stage.transport.declare(&topology, Declare::Verify).await;
        verified.must("verifying partitions");
    } else {
        let error = declared
            .err()
            .must("partitions were accepted without the capability");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}
