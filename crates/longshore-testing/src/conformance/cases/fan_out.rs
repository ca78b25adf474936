//! P16: fan-out.

use std::{sync::Arc, time::Duration};

use longshore_core::{Declare, Destination, ErrorKind};

use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{assert_same, laden, later, message, number, numbered, to_topic},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p16_a_message_reaches_every_bound_queue needs Topics,
    p16_consumers_of_one_bound_queue_share_its_copies needs Topics,
    p16_a_queue_bound_later_gets_only_what_comes_later needs Topics,
    p16_a_topic_without_queues_is_no_such_queue needs Topics,
    p16_a_copy_is_settled_by_itself needs Topics,
    p16_topics_are_kept_apart needs Topics,
    p16_a_delayed_message_reaches_every_bound_queue needs Topics,
    p16_verify_refuses_a_missing_binding needs Topics,
];

async fn p16_a_message_reaches_every_bound_queue(stage: Arc<Stage>) {
    let topic = stage.name();
    let mut queues = Vec::new();
    for _ in 0..3 {
        queues.push(stage.bound_to(&[&topic]).await);
    }
    let unbound = stage.queue().await;
    let sent = laden();
    let mut batch = vec![to_topic(&topic, sent.clone())];
    batch.extend(numbered(0..20).map(|envelope| to_topic(&topic, envelope)));
    stage.publish(batch).await;
    for queue in &queues {
        let mut consumer = Consumer::of(&stage, queue).await;
        let all = consumer.drain(21).await;
        let copy = all
            .iter()
            .find(|d| d.envelope.id == sent.id)
            .must("its copy");
        assert_same(&sent, &copy.envelope);
        consumer.silent(Duration::from_millis(200)).await;
    }
    Consumer::of(&stage, &unbound).await.silent(SILENCE).await;
}

async fn p16_consumers_of_one_bound_queue_share_its_copies(stage: Arc<Stage>) {
    let topic = stage.name();
    let (one, other) = (
        stage.bound_to(&[&topic]).await,
        stage.bound_to(&[&topic]).await,
    );
    let batch = numbered(0..40).map(|envelope| to_topic(&topic, envelope));
    stage.publish(batch.collect()).await;
    for queue in [one, other] {
        let mut first = Consumer::with_prefetch(&stage, &queue, 10).await;
        let held = first.take(10).await;
        let mut second = Consumer::of(&stage, &queue).await;
        let rest = second.drain(30).await;
        let mut numbers: Vec<_> = held
            .iter()
            .chain(&rest)
            .map(|d| number(&d.envelope))
            .collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..40), "each of them once");
        first.complete_all(held).await;
    }
}

async fn p16_a_queue_bound_later_gets_only_what_comes_later(stage: Arc<Stage>) {
    let topic = stage.name();
    let early = stage.bound_to(&[&topic]).await;
    stage.publish(vec![to_topic(&topic, message("0"))]).await;
    let late = stage.bound_to(&[&topic]).await;
    stage.publish(vec![to_topic(&topic, message("1"))]).await;
    let mut late = Consumer::of(&stage, &late).await;
    let only = late.next().await;
    assert_eq!(number(&only.envelope), 1);
    late.complete(only).await;
    late.silent(SILENCE).await;
    Consumer::of(&stage, &early).await.drain(2).await;
}

async fn p16_a_topic_without_queues_is_no_such_queue(stage: Arc<Stage>) {
    let topic = stage.name();
    for _ in 0..2 {
        let mut answers = stage
            .transport
            .publish(vec![to_topic(&topic, message("lost"))])
            .await;
        let error = answers
            .pop()
            .must("an answer")
            .err()
            .must("a topic nobody is bound to");
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    }
    let bound = stage.bound_to(&[&topic]).await;
    stage.publish(vec![to_topic(&topic, message("kept"))]).await;
    let mut consumer = Consumer::of(&stage, &bound).await;
    let kept = consumer.next().await;
    assert_eq!(&kept.envelope.body[..], b"kept");
    consumer.complete(kept).await;
}

async fn p16_a_copy_is_settled_by_itself(stage: Arc<Stage>) {
    let topic = stage.name();
    let (one, other) = (
        stage.bound_to(&[&topic]).await,
        stage.bound_to(&[&topic]).await,
    );
    stage
        .publish(vec![to_topic(&topic, message("shared"))])
        .await;
    let mut first = Consumer::of(&stage, &one).await;
    let copy = first.next().await;
    first.retry(copy, Duration::ZERO).await;
    let mut second = Consumer::of(&stage, &other).await;
    let copy = second.next().await;
    assert_eq!(
        copy.attempt, 1,
        "the retry of one copy is none of the other"
    );
    second.complete(copy).await;
    let copy = first.next().await;
    assert_eq!(copy.attempt, 2);
    first.complete(copy).await;
    second.silent(SILENCE).await;
}

async fn p16_topics_are_kept_apart(stage: Arc<Stage>) {
    let (red, blue) = (stage.name(), stage.name());
    let (both, only) = (
        stage.bound_to(&[&red, &blue]).await,
        stage.bound_to(&[&blue]).await,
    );
    stage
        .publish(vec![
            to_topic(&red, message("0")),
            to_topic(&blue, message("1")),
        ])
        .await;
    Consumer::of(&stage, &both).await.drain(2).await;
    let mut consumer = Consumer::of(&stage, &only).await;
    let blue = consumer.next().await;
    assert_eq!(number(&blue.envelope), 1);
    consumer.complete(blue).await;
    consumer.silent(SILENCE).await;
}

async fn p16_a_delayed_message_reaches_every_bound_queue(stage: Arc<Stage>) {
    if stage.transport.capabilities().longest_delay.is_none() {
        return;
    }
    let topic = stage.name();
    let queues = [
        stage.bound_to(&[&topic]).await,
        stage.bound_to(&[&topic]).await,
    ];
    let delay = Duration::from_millis(600);
    let mut outgoing = later(&queues[0], message("later"), delay);
    outgoing.to = Destination::Topic(topic);
    let asked = tokio::time::Instant::now();
    let mut answers = stage.transport.publish(vec![outgoing]).await;
    match answers.pop().must("an answer") {
        // No capability says so beforehand; a clear refusal is all there can be.
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        answer => answer.must("publishing later to a topic"),
    };
    for queue in &queues {
        let mut consumer = Consumer::of(&stage, queue).await;
        let copy = consumer.next().await;
        assert!(asked.elapsed() + Duration::from_millis(1) >= delay, "early");
        consumer.complete(copy).await;
    }
}

async fn p16_verify_refuses_a_missing_binding(stage: Arc<Stage>) {
    let topic = stage.name();
    let mut queue = stage.queue().await;
    queue.topics.push(topic.clone());
    // Not every broker lets a client look at a binding; none may create it here.
    let verified = stage.transport.declare(&queue, Declare::Verify).await;
    let mut answers = stage
        .transport
        .publish(vec![to_topic(&topic, message("lost"))])
        .await;
    let error = answers
        .pop()
        .must("an answer")
        .err()
        .must("Verify made a binding");
    assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    if let Err(error) = verified {
        let clear = matches!(
            error.kind(),
            ErrorKind::NoSuchQueue | ErrorKind::TopologyDiffers
        );
        assert!(clear, "{:?}: {error}", error.kind());
    }
    stage.declare(&queue).await;
    let verified = stage.transport.declare(&queue, Declare::Verify).await;
    verified.must("verifying a binding that is there");
}
