//! What a client that can only publish may try.

use longshore_core::{Delivery, Reason, Verdict};

use crate::{
    raw::{Raw, nested},
    rig::{Rig, Taker, body, message},
};

async fn set_aside(taker: &Taker, delivery: Delivery) {
    let defect = delivery.defect.clone().expect("a defect");
    let verdict = Verdict::DeadLetter {
        reason: defect.reason.clone(),
        detail: defect.detail.clone(),
    };
    taker.settle(delivery, verdict).await;
}

#[tokio::test]
async fn tables_nested_20_000_deep_are_set_aside_and_the_consumer_lives() {
    let rig = Rig::new().await;
    let mut taker = rig.subscribe().await;
    let mut raw = Raw::connect(&rig.url).await;
    for levels in [9, 20_000, 10_000] {
        raw.publish_with_table(rig.queue(), &nested(levels), b"bomb")
            .await;
    }
    rig.publish(["good"]).await;
    for _ in 0..3 {
        let delivery = taker.one().await;
        let defect = delivery.defect.as_ref().expect("a defect");
        assert_eq!(defect.reason, Reason::Hostile);
        assert!(delivery.envelope.body.is_empty());
        set_aside(&taker, delivery).await;
    }
    let good = taker.one().await;
    assert_eq!(body(&good), "good");
    taker.complete(vec![good]).await;
    taker.nothing().await;
}

#[tokio::test]
async fn names_that_are_no_text_do_not_end_the_connection() {
    let rig = Rig::new().await;
    let mut taker = rig.subscribe().await;
    let mut raw = Raw::connect(&rig.url).await;
    // A message id, a header's name.
    raw.publish("", rig.queue().as_bytes(), 1 << 7, &[2, 0xff, 0xfe], b"x")
        .await;
    raw.publish_with_table(rig.queue(), &[1, 0xff, b'V'], b"x")
        .await;
    rig.publish(["good"]).await;
    for _ in 0..2 {
        let delivery = taker.one().await;
        assert!(delivery.defect.is_some());
        set_aside(&taker, delivery).await;
    }
    assert_eq!(body(&taker.one().await), "good");
}

#[tokio::test]
async fn a_routing_key_that_is_no_text_arrives_through_a_topic() {
    let mut rig = Rig::new().await;
    let topic = crate::rig::unique();
    rig.topology.topics = vec![topic.clone()];
    let mut taker = rig.subscribe().await;
    let mut raw = Raw::connect(&rig.url).await;
    raw.publish(&topic, b"\xff\xfe.x", 0, &[], b"through").await;
    assert_eq!(body(&taker.one().await), "through");
}

#[tokio::test]
async fn a_body_over_the_limit_is_never_held_and_the_next_one_arrives() {
    let rig = Rig::new().await;
    let mut subscription = rig.subscription();
    subscription.limits.body = 1000;
    let mut taker = rig.subscribe_as(subscription).await;
    let mut raw = Raw::connect(&rig.url).await;
    raw.publish("", rig.queue().as_bytes(), 0, &[], &vec![b'x'; 15_000_000])
        .await;
    rig.publish([&"y".repeat(1000)]).await;
    let delivery = taker.one().await;
    let defect = delivery.defect.as_ref().expect("a defect");
    assert_eq!(defect.reason, Reason::TooLarge);
    assert!(defect.detail.contains("15000000"), "{}", defect.detail);
    set_aside(&taker, delivery).await;
    let good = taker.one().await;
    assert_eq!((good.envelope.body.len(), &good.defect), (1000, &None));
}

#[tokio::test]
async fn forged_headers_of_ours_steer_nothing() {
    let rig = Rig::new().await;
    let mut taker = rig.subscribe().await;
    let mut raw = Raw::connect(&rig.url).await;
    let mut table = Vec::new();
    for (name, value) in [
        ("longshore-defect", "hostile"),
        ("longshore-dead-queue", "somewhere.else"),
        ("longshore-attempts", "3"),
        ("x-delivery-count", "7"),
    ] {
        table.push(name.len() as u8);
        table.extend(name.bytes());
        table.push(b'S');
        table.extend((value.len() as u32).to_be_bytes());
        table.extend(value.bytes());
    }
    raw.publish_with_table(rig.queue(), &table, b"x").await;
    let delivery = taker.one().await;
    assert_eq!(delivery.defect, None);
    assert!(delivery.envelope.headers.is_empty());
    // What it claims of its own past costs it its own attempts and nothing else.
    taker.complete(vec![delivery]).await;
    rig.publish(["good"]).await;
    assert_eq!(taker.one().await.attempt, 1);
}

#[tokio::test]
async fn a_forged_counter_is_not_believed_at_first_and_overwritten_later() {
    for name in ["x-delivery-count", "x-acquired-count"] {
        let rig = Rig::new().await;
        let mut taker = rig.subscribe().await;
        let mut table = vec![name.len() as u8];
        table.extend(name.bytes());
        table.push(b'l');
        table.extend(i64::MAX.to_be_bytes());
        let mut raw = Raw::connect(&rig.url).await;
        raw.publish_with_table(rig.queue(), &table, b"x").await;
        let first = taker.one().await;
        assert_eq!((first.attempt, first.defect), (1, None), "{name}");
        drop(taker);
        let mut taker = rig.subscribe().await;
        let again = taker.one().await;
        assert_eq!((again.attempt, &again.defect), (2, &None), "{name}");
        taker.complete(vec![again]).await;
    }
}

#[tokio::test]
async fn equal_ids_in_flight_do_not_hold_up_the_others() {
    let rig = Rig::new().await;
    let mut batch = Vec::new();
    for n in 0..500 {
        let mut outgoing = rig.outgoing(message("twin"));
        if n % 2 == 0 {
            outgoing.envelope.id = "the-same".into();
        }
        batch.push(outgoing);
    }
    for answer in rig.transport.publish(batch).await {
        answer.expect("a confirm");
    }
    let mut taker = rig.subscribe().await;
    let mut all = Vec::new();
    while all.len() < 500 {
        let some = taker.some(64).await;
        all.extend(some.iter().map(|d| d.envelope.id.clone()));
        taker.complete(some).await;
    }
    assert_eq!(all.iter().filter(|id| *id == "the-same").count(), 250);
}
