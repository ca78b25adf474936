//! P1: publish is honest.

use std::{sync::Arc, time::Duration};

use longshore_core::{Destination, ErrorKind, Part, Published, Topology};

use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{all_to, assert_same, laden, message, number, numbered, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p1_a_message_arrives_with_everything_it_was_sent_with,
    p1_a_body_and_a_type_are_a_complete_message,
    p1_empty_binary_and_large_bodies_arrive_unaltered,
    p1_header_values_need_not_be_text,
    p1_an_empty_batch_gets_no_answers,
    p1_a_batch_is_answered_in_order_where_some_are_refused,
    p1_a_missing_queue_is_said_and_nothing_is_stored,
    p1_one_call_publishes_a_batch_of_five_thousand,
    p1_a_new_consumer_receives_what_was_published_before,
    p1_messages_outlive_their_publisher,
    p1_messages_arrive_in_publish_order_while_nothing_fails needs Order,
];

async fn p1_a_message_arrives_with_everything_it_was_sent_with(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let arrived = consumer.next().await;
    assert_same(&sent, &arrived.envelope);
    assert_eq!(arrived.part, Part::Lane(0));
    assert!(
        arrived.attempt == 1 && !arrived.suspect && arrived.defect.is_none(),
        "{arrived:?}"
    );
    consumer.complete(arrived).await;
}

async fn p1_a_body_and_a_type_are_a_complete_message(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut sent = message("{}");
    sent.sent_at = None;
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let arrived = consumer.next().await;
    assert_eq!(
        (&arrived.envelope.kind, &arrived.envelope.body),
        (&sent.kind, &sent.body)
    );
    assert!(arrived.envelope.key.is_none() && arrived.envelope.headers.is_empty());
    assert!(arrived.envelope.correlation_id.is_none() && arrived.envelope.expires_at.is_none());
    assert!(arrived.envelope.priority.is_none() && arrived.envelope.reply_to.is_none());
    consumer.complete(arrived).await;
}

async fn p1_empty_binary_and_large_bodies_arrive_unaltered(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let large: Vec<u8> = (0..1024 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let bodies = [Vec::new(), vec![0], b"\r\n\0\xff$5\r\n".to_vec(), large];
    let sent: Vec<_> = bodies.into_iter().map(message).collect();
    stage.publish(all_to(&topology, sent.clone())).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for arrived in consumer.drain(sent.len()).await {
        let same = sent.iter().find(|sent| sent.id == arrived.envelope.id);
        assert_same(same.must("a known id"), &arrived.envelope);
        assert!(
            arrived.defect.is_none(),
            "the limit itself is allowed: {arrived:?}"
        );
    }
}

async fn p1_header_values_need_not_be_text(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut sent = message("{}");
    sent.headers
        .push(("binary".into(), vec![0, 159, 146, 150, 255].into()));
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let arrived = consumer.next().await;
    assert_same(&sent, &arrived.envelope);
    consumer.complete(arrived).await;
}

async fn p1_an_empty_batch_gets_no_answers(stage: Arc<Stage>) {
    assert!(stage.transport.publish(Vec::new()).await.is_empty());
    let topology = stage.queue().await;
    let consumer = Consumer::of(&stage, &topology).await;
    assert!(consumer.settler.settle(Vec::new()).await.is_empty());
    assert!(consumer.settler.start(&[]).await.is_empty());
}

async fn p1_a_batch_is_answered_in_order_where_some_are_refused(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let missing = Topology::new(stage.name());
    let batch: Vec<_> = (0..40)
        .map(|at| {
            let place = if at % 3 == 1 { &missing } else { &topology };
            to(place, message(at.to_string()))
        })
        .collect();
    let answers = stage.transport.publish(batch).await;
    assert_eq!(answers.len(), 40, "one answer for each message");
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(published) => assert_eq!(
                (at % 3 != 1, published),
                (true, Published::Accepted),
                "{at}"
            ),
            Err(error) => assert_eq!(
                (at % 3, error.kind()),
                (1, ErrorKind::NoSuchQueue),
                "{at}: {error}"
            ),
        }
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    let wanted = (0..40).filter(|at| at % 3 != 1).collect::<Vec<_>>();
    let mut numbers: Vec<_> = consumer
        .drain(wanted.len())
        .await
        .iter()
        .map(|d| number(&d.envelope))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, wanted);
    consumer.silent(SILENCE).await;
}

async fn p1_a_missing_queue_is_said_and_nothing_is_stored(stage: Arc<Stage>) {
    let topology = Topology::new(stage.name());
    let mut elsewhere = to(&topology, message("lost"));
    for _ in 0..2 {
        let mut answers = stage.transport.publish(vec![elsewhere.clone()]).await;
        let error = answers
            .pop()
            .must("an answer")
            .err()
            .must("a missing queue is an error");
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    }
    stage.declare(&topology).await;
    elsewhere.to = Destination::Queue(topology.queue.clone(), Part::Lane(0));
    elsewhere.envelope = message("stored");
    stage.publish(vec![elsewhere]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let stored = consumer.next().await;
    assert_eq!(&stored.envelope.body[..], b"stored");
    consumer.complete(stored).await;
    consumer.silent(SILENCE).await;
}

async fn p1_one_call_publishes_a_batch_of_five_thousand(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..5000))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 500).await;
    let mut numbers: Vec<_> = consumer
        .drain(5000)
        .await
        .iter()
        .map(|d| number(&d.envelope))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..5000), "every message once");
}

async fn p1_a_new_consumer_receives_what_was_published_before(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..50))).await;
    let mut first = Consumer::of(&stage, &topology).await;
    first.drain(20).await;
    first.stop_then_release().await;
    drop(first);
    let mut second = Consumer::of(&stage, &topology).await;
    second.drain(30).await;
    second.silent(Duration::from_millis(200)).await;
}

async fn p1_messages_outlive_their_publisher(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let publisher = stage.open().await;
    let batch = all_to(&topology, numbered(0..20));
    crate::conformance::stage::accepted(&*publisher, batch).await;
    publisher.close(Duration::from_secs(2)).await;
    drop(publisher);
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.drain(20).await;
}

async fn p1_messages_arrive_in_publish_order_while_nothing_fails(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..100))).await;
    for at in 100..200 {
        stage.publish(all_to(&topology, numbered(at..at + 1))).await;
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    for at in 0..200 {
        let delivery = consumer.next().await;
        assert_eq!(number(&delivery.envelope), at);
        consumer.complete(delivery).await;
    }
}
