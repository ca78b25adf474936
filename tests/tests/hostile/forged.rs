//! Names that only Longshore or the broker may use, in the hands of a publisher.

use std::time::Duration;

use longshore::{Client, HandlerError, Queue, Reason};
use longshore_testing::brokers;
use longshore_tests::{
    plain,
    raw_amqp::{Property::UserId, RawAmqp, entry, long, text_entry},
    unique,
    waiting::until,
    witness::{Witness, only_dead},
};
use serde_json::json;

use crate::{endures, job, key, on_rabbitmq, with_headers};

/// Each forged number of earlier attempts, and the attempt a handler may see; `None`: it is dead.
const FORGED_ATTEMPTS: [(&str, Option<u32>); 9] = [
    ("0", Some(1)),
    ("3", Some(4)),
    ("-1", Some(1)),
    ("many", Some(1)),
    ("", Some(1)),
    ("1e3", Some(1)),
    ("9223372036854775807", None),
    ("9223372036854775808", None),
    ("4294967295", None),
];

/// `None` for what never reached a handler and is dead.
async fn attempt_seen(client: &Client, queue: &Queue, witness: &Witness) -> Option<u32> {
    until(
        "it is handled or dead",
        Duration::from_secs(20),
        async || {
            let seen = witness.seen().first().map(|sight| sight.attempt);
            let dead = client.dead_letters(queue).peek().await.ok()?;
            (seen.is_some() || dead.is_some()).then_some(seen)
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_attempt_counts_on_rabbitmq_are_clamped() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let mut raw = RawAmqp::connect(&url).unwrap();
    let text = |text: &str| text_entry("longshore-attempts", text.as_bytes());
    let number = |n: i64| entry(b"longshore-attempts", b'l', &n.to_be_bytes());
    let mut tables: Vec<_> = FORGED_ATTEMPTS
        .iter()
        .filter(|(forged, _)| *forged != "9223372036854775808")
        .map(|(forged, expected)| (text(forged), *expected))
        .collect();
    tables.push((number(i64::MAX), None));
    tables.push((number(i64::MIN), Some(1)));
    tables.push((number(-1), Some(1)));
    tables.push((entry(b"longshore-attempts", b'F', &long(b"")), Some(1)));
    tables.push((
        entry(b"longshore-attempts", b'd', &f64::MAX.to_be_bytes()),
        Some(1),
    ));
    tables.push((
        entry(b"longshore-attempts", b'T', &u64::MAX.to_be_bytes()),
        None,
    ));
    for (table, expected) in tables {
        let queue = Queue::new(&unique("attempts"));
        let witness = Witness::default();
        let worker = witness
            .worker(&client, &queue, |_, _| Ok(()))
            .await
            .unwrap();
        raw.publish(queue.name(), &with_headers(table.clone()))
            .unwrap();
        let seen = attempt_seen(&client, &queue, &witness).await;
        assert_eq!(seen, expected, "{:?}", String::from_utf8_lossy(&table));
        if seen.is_none() {
            let letter = only_dead(&client, &queue).await;
            assert_eq!(letter.reason, Reason::Crashed, "{letter:?}");
            worker.stop().await;
            client
                .dead_letters(&queue)
                .redrive(&letter.id)
                .await
                .unwrap();
            let worker = witness
                .worker(&client, &queue, |_, _| Ok(()))
                .await
                .unwrap();
            assert_eq!(
                witness.starts(1).await[0].attempt,
                1,
                "redrive resets attempts"
            );
            worker.stop().await;
        } else {
            worker.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_attempt_counts_on_redis_are_clamped() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    for (forged, expected) in FORGED_ATTEMPTS {
        let queue = Queue::new(&unique("attempts"));
        let witness = Witness::default();
        let worker = witness
            .worker(&client, &queue, |_, _| Ok(()))
            .await
            .unwrap();
        let add = json!([
            "XADD",
            key(&queue, "stream"),
            "*",
            "type",
            "job",
            "body",
            "{\"number\":1}",
            "attempt",
            forged
        ]);
        plain::redis(&url, &[add]).await;
        let seen = attempt_seen(&client, &queue, &witness).await;
        assert_eq!(seen, expected, "{forged}");
        worker.stop().await;
        if seen.is_none() {
            let letter = only_dead(&client, &queue).await;
            assert_eq!(letter.reason, Reason::Crashed, "{letter:?}");
            client
                .dead_letters(&queue)
                .redrive(&letter.id)
                .await
                .unwrap();
            let worker = witness
                .worker(&client, &queue, |_, _| Ok(()))
                .await
                .unwrap();
            assert_eq!(
                witness.starts(1).await[0].attempt,
                1,
                "redrive resets attempts"
            );
            worker.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_of_ours_and_of_the_broker_steer_nothing() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let (queue, elsewhere) = (
        Queue::new(&unique("forged")),
        Queue::new(&unique("elsewhere")),
    );
    client.declare(&elsewhere).await.unwrap();
    let other = elsewhere.name().as_bytes();
    let nested = [
        text_entry("queue", other),
        text_entry("reason", b"expired"),
        text_entry("exchange", b""),
        text_entry("original-expiration", b"not a number"),
        entry(b"count", b'l', &i64::MAX.to_be_bytes()),
    ];
    let death = [b"F".as_slice(), &long(&nested.concat())].concat();
    let original = [
        entry(b"priority", b'l', &i64::MAX.to_be_bytes()),
        text_entry("expiration", b"-1\n"),
        entry(b"delivery-mode", b'B', &[77]),
        entry(b"message-id", b'V', b""),
    ];
    let table = [
        text_entry("longshore-dead-reason", b"expired"),
        text_entry("longshore-dead-queue", other),
        text_entry("longshore-dead-detail", &[b'x'; 10_000]),
        text_entry("longshore-dead-attempts", b"many"),
        entry(b"longshore-dead-at", b'l', &i64::MIN.to_be_bytes()),
        text_entry("longshore-defect", b"too-large\nforged"),
        text_entry(
            "longshore-defect-00000000000000000000000000000000",
            b"too-large\nforged",
        ),
        entry(b"longshore-original", b'F', &long(&original.concat())),
        text_entry("longshore-original-expiration", b"1"),
        text_entry("longshore-user-id", b"somebody"),
        text_entry("longshore-priority", b"high"),
        entry(b"longshore-sent-at", b'l', &i64::MAX.to_be_bytes()),
        entry(b"longshore-expires-at", b'l', &i64::MAX.to_be_bytes()),
        entry(b"x-death", b'A', &long(&death)),
        text_entry("x-first-death-queue", other),
        text_entry("mine", b"kept"),
    ];
    let witness = Witness::default();
    let worker = witness
        .worker(&client, &queue, |_, cx| match cx.attempt() {
            1 => Err(HandlerError::retry_after(
                Duration::from_millis(100),
                "again",
            )),
            _ => Err(HandlerError::permanent("for good")),
        })
        .await
        .unwrap();
    let mut raw = RawAmqp::connect(&url).unwrap();
    let sent = with_headers(table.concat());
    raw.publish(queue.name(), &sent).unwrap();
    let letter = only_dead(&client, &queue).await;
    assert_eq!(
        (&letter.reason, &*letter.detail, letter.attempts),
        (&Reason::Permanent, "for good", 2)
    );
    worker.stop().await;
    let names: Vec<_> = witness.seen()[0]
        .envelope
        .headers
        .iter()
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(names, ["mine"], "what is reserved is not shown to handlers");
    client
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    let back = raw.get(queue.name()).unwrap().unwrap();
    assert_eq!(back.body, sent.body);
    for name in [
        elsewhere.name().to_owned(),
        format!("{}.dlq", elsewhere.name()),
    ] {
        assert_eq!(
            raw.get(&name).unwrap(),
            None,
            "something was written to {name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_counter_of_the_broker_uses_up_no_attempt() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let mut raw = RawAmqp::connect(&url).unwrap();
    for name in ["x-delivery-count", "x-acquired-count"] {
        let queue = Queue::new(&unique("counter"));
        let witness = Witness::default();
        let worker = witness
            .worker(&client, &queue, |_, _| Ok(()))
            .await
            .unwrap();
        let table = entry(name.as_bytes(), b'l', &i64::MAX.to_be_bytes());
        raw.publish(queue.name(), &with_headers(table)).unwrap();
        let seen = attempt_seen(&client, &queue, &witness).await;
        worker.stop().await;
        assert_eq!(seen, Some(1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_obituary_does_not_hide_why_a_message_was_set_aside() {
    let many: Vec<u8> = (0..65)
        .flat_map(|n| text_entry(&format!("h{n}"), b"v"))
        .collect();
    let forged = [
        text_entry("longshore-dead-reason", b"expired"),
        text_entry("longshore-dead-detail", b"nothing to see here"),
        entry(b"longshore-dead-attempts", b'l', &7_i64.to_be_bytes()),
    ];
    let table = [many, forged.concat()].concat();
    let messages = vec![(
        "a forged obituary".to_owned(),
        with_headers(table),
        Reason::Hostile,
    )];
    endures(on_rabbitmq("obituary").await, messages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_user_id_is_refused_by_rabbitmq_itself() {
    let scene = on_rabbitmq("user").await;
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    let mut message = job();
    message.properties = message.properties.with(UserId, "somebody else");
    assert!(raw.publish(scene.queue.name(), &message).is_err());
}
