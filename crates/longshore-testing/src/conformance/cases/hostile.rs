//! P18: hostile input is harmless.

use std::sync::Arc;

use longshore_core::{Envelope, Topology};

use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{message, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p18_headers_that_look_like_ours_steer_nothing,
    p18_debug_output_and_errors_hold_no_body,
    p18_bytes_of_a_protocol_in_every_field_change_nothing,
    p18_ten_thousand_hostile_messages_do_not_stop_a_good_one,
];

/// Names that some broker or this library gives a meaning to.
const OURS: [&str; 14] = [
    "longshore-attempts",
    "longshore-dead-reason",
    "longshore-dead-queue",
    "longshore-expires-at",
    "longshore-key",
    "longshore-priority",
    "x-death",
    "x-delivery-count",
    "x-delivery-limit",
    "attempt",
    "expires_at",
    "dead.reason",
    "dead.queue",
    "type",
];

async fn p18_headers_that_look_like_ours_steer_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for name in OURS {
        let mut sent = message("{}");
        sent.headers.push((name.into(), "4".into()));
        let mut answers = stage
            .transport
            .publish(vec![to(&topology, sent.clone())])
            .await;
        if answers.pop().must("an answer").is_err() {
            // Refusing a reserved name is as good as stripping it.
            continue;
        }
        let arrived = consumer.next().await;
        let Envelope {
            kind,
            key,
            priority,
            expires_at,
            ..
        } = &arrived.envelope;
        assert_eq!(
            (kind, key, priority, expires_at),
            (&sent.kind, &None, &None, &None),
            "{name}"
        );
        assert!(
            arrived.attempt == 1 && !arrived.suspect,
            "{name}: {arrived:?}"
        );
        consumer.complete(arrived).await;
    }
    consumer.silent(SILENCE).await;
    assert_eq!(stage.stats(&topology).await.dead, 0);
}

async fn p18_debug_output_and_errors_hold_no_body(stage: Arc<Stage>) {
    const SECRET: &str = "canary-body-7f3a";
    let topology = stage.queue().await;
    let missing = Topology::new(stage.name());
    let mut sent = message(SECRET);
    sent.headers.push(("authorization".into(), SECRET.into()));
    let mut answers = stage
        .transport
        .publish(vec![to(&missing, sent.clone())])
        .await;
    let error = answers
        .pop()
        .must("an answer")
        .err()
        .must("a missing queue");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    stage.publish(vec![to(&topology, sent)]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let arrived = consumer.next().await;
    assert!(!format!("{arrived:?}").contains(SECRET));
    consumer.complete(arrived).await;
}

async fn p18_bytes_of_a_protocol_in_every_field_change_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for text in [
        "$-1",
        "*2",
        "{x}:stream",
        "#.*.#",
        "KEYS[1]",
        "%s%n",
        "';--",
        "../../x",
        "\u{202e}x",
    ] {
        let mut sent = message(text);
        sent.id = text.into();
        sent.kind = text.into();
        sent.key = Some(text.into());
        sent.correlation_id = Some(text.into());
        sent.headers
            .push((text.into(), text.as_bytes().to_vec().into()));
        stage.publish(vec![to(&topology, sent.clone())]).await;
        let arrived = consumer.next().await;
        crate::conformance::message::assert_same(&sent, &arrived.envelope);
        consumer.complete(arrived).await;
    }
    consumer.silent(SILENCE).await;
}

async fn p18_ten_thousand_hostile_messages_do_not_stop_a_good_one(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let hostile = |_| {
        let mut sent = message("{}");
        sent.id = "x\n".into();
        to(&topology, sent)
    };
    for _ in 0..10 {
        stage.publish((0..1000).map(hostile).collect()).await;
    }
    stage.publish(vec![to(&topology, message("good"))]).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 500).await;
    let all = consumer.drain(10_001).await;
    let good: Vec<_> = all.iter().filter(|d| d.defect.is_none()).collect();
    assert!(
        good.len() == 1 && good[0].envelope.body == "good",
        "{} without a defect",
        good.len()
    );
}
