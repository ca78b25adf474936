//! What a plain client publishes is a message of ours.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use longshore::{Client, HandlerError, Queue, Reason, Topic};
use longshore_testing::brokers;
use longshore_tests::{
    plain, unique,
    witness::{Sight, Witness, dead},
};
use serde_json::{Value, json};

use crate::{everything, fine, is_about, millis, rabbitmq, redis, stream_key};

fn headers(sight: &Sight) -> BTreeMap<String, Vec<u8>> {
    let headers = sight.envelope.headers.iter();
    headers
        .map(|(name, value)| (name.to_string(), value.to_vec()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_a_type_from_pika_are_a_complete_message() {
    let (url, client, queue) = rabbitmq("plain").await;
    let message =
        json!({"to": queue.name(), "body": "{\"number\":7}", "properties": {"type": "job"}});
    plain::amqp(&url, &[message]).await;
    sees_a_complete_message(&client, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_a_type_from_redis_py_are_a_complete_message() {
    let (url, client, queue) = redis("plain").await;
    let add = json!([
        "XADD",
        stream_key(&queue),
        "*",
        "type",
        "job",
        "body",
        "{\"number\":7}"
    ]);
    plain::redis(&url, &[add]).await;
    sees_a_complete_message(&client, &queue).await;
}

async fn sees_a_complete_message(client: &Client, queue: &Queue) {
    let witness = Witness::default();
    let worker = witness
        .worker(client, queue, |_, cx| match cx.attempt() {
            1 => Err(HandlerError::retry_after(
                Duration::from_millis(10),
                "again",
            )),
            _ => Ok(()),
        })
        .await
        .unwrap();
    let seen = witness.starts(2).await;
    assert_eq!(
        (seen[0].number, seen[0].attempt, seen[1].attempt),
        (7, 1, 2)
    );
    assert!(!seen[0].idempotency_key.is_empty());
    assert_eq!(
        seen[0].idempotency_key, seen[1].idempotency_key,
        "the same for every try"
    );
    assert!(seen[0].envelope.headers.is_empty());
    assert_eq!(
        (seen[0].envelope.sent_at, seen[0].envelope.expires_at),
        (None, None)
    );
    worker.stop().await;
    assert_eq!(client.stats(queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_with_redis_cli_before_any_service_ran_is_handled_later() {
    let url = brokers::redis_url().unwrap();
    let queue = Queue::new(&unique("early"));
    let add = |n| {
        json!([
            "XADD",
            stream_key(&queue),
            "*",
            "type",
            "job",
            "body",
            format!("{{\"number\":{n}}}")
        ])
    };
    plain::redis(&url, &[add(1), add(2)]).await;
    let client = longshore::connect(&url).await.unwrap();
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let seen = witness.starts(2).await;
    assert_eq!(
        seen.iter().map(|sight| sight.number).collect::<Vec<_>>(),
        [1, 2]
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_pika_can_set_is_seen_by_the_handler_as_the_wire_format_says() {
    let (url, client, queue) = rabbitmq("everything").await;
    let message =
        json!({"to": queue.name(), "body": "{\"number\":7}", "properties": everything(&url)});
    plain::amqp(&url, &[message]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let sight = witness.starts(1).await.remove(0);
    let envelope = &sight.envelope;
    assert_eq!(
        (sight.attempt, &*envelope.id, &*envelope.kind),
        (1, "message 1", "job")
    );
    assert_eq!(sight.idempotency_key, "message 1");
    assert_eq!(&*envelope.content_type, "application/json; charset=utf-8");
    assert_eq!(envelope.correlation_id.as_deref(), Some("correlation 1"));
    assert_eq!(envelope.key.as_deref(), Some("customer-42"));
    assert_eq!(
        envelope.reply_to.as_ref().unwrap().as_str(),
        "amq.gen-replies"
    );
    assert_eq!(millis(envelope.sent_at.unwrap()), 1_700_000_000_000);
    let expires = SystemTime::now() + Duration::from_secs(600);
    assert!(is_about(millis(envelope.expires_at.unwrap()), expires));
    let headers = headers(&sight);
    let expected: [(&str, &[u8]); 13] = [
        ("text", "ünï – code".as_bytes()),
        ("empty", b""),
        ("small", b"42"),
        ("negative", b"-7"),
        ("large", b"1099511627776"),
        ("flag", b"true"),
        ("nothing", b"null"),
        ("bytes", &[0xff, 0, 1]),
        ("when", b"1600000000"),
        ("price", b"1234e-2"),
        ("list", br#"[1,"two",{"three":3}]"#),
        ("table", br#"{"a":{"b":[true,null]},"c":"d"}"#),
        ("x-tenant", b"with a customary prefix"),
    ];
    for (name, value) in expected {
        assert_eq!(headers.get(name).map(Vec::as_slice), Some(value), "{name}");
    }
    assert_eq!(headers.len(), expected.len(), "{:?}", headers.keys());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_redis_py_can_add_is_seen_by_the_handler_as_the_wire_format_says() {
    let (url, client, queue) = redis("everything").await;
    let expires = millis(SystemTime::now()) + 600_000;
    let add = json!([
        "XADD",
        stream_key(&queue),
        "*",
        "h.tenant",
        "blue",
        "body",
        "{\"number\":7}",
        "id",
        "message 1",
        "key",
        "customer-42",
        "content_type",
        "application/cloudevents+json",
        "correlation_id",
        "correlation 1",
        "reply_to",
        "ls:reply:somebody",
        "sent_at",
        "1700000000123",
        "expires_at",
        expires.to_string(),
        "attempt",
        "2",
        "h.bytes",
        plain::bytes(&[0xff, 0, 1]),
        "traceparent-like",
        "unknown",
        "type",
        "job",
    ]);
    plain::redis(&url, &[add]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let sight = witness.starts(1).await.remove(0);
    let envelope = &sight.envelope;
    assert_eq!(
        (sight.attempt, &*envelope.id, &*envelope.kind),
        (3, "message 1", "job")
    );
    assert_eq!(&*envelope.content_type, "application/cloudevents+json");
    assert_eq!(envelope.correlation_id.as_deref(), Some("correlation 1"));
    assert_eq!(envelope.key.as_deref(), Some("customer-42"));
    assert_eq!(
        envelope.reply_to.as_ref().unwrap().as_str(),
        "ls:reply:somebody"
    );
    assert_eq!(millis(envelope.sent_at.unwrap()), 1_700_000_000_123);
    assert_eq!(millis(envelope.expires_at.unwrap()), expires);
    let expected = [
        ("bytes".to_owned(), vec![0xff, 0, 1]),
        ("tenant".to_owned(), b"blue".to_vec()),
    ];
    assert_eq!(headers(&sight), BTreeMap::from(expected));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_address_that_is_none_of_ours_is_not_shown_to_the_handler() {
    let (amqp, client, queue) = rabbitmq("reply").await;
    let message = |to: &str| json!({"to": queue.name(), "body": "{\"number\":1}", "properties": {"type": "job", "reply_to": to}});
    plain::amqp(&amqp, &[message("orders"), message("amq.gen-replies")]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let replies: Vec<_> = witness
        .starts(2)
        .await
        .into_iter()
        .map(|s| s.envelope.reply_to)
        .collect();
    assert!(replies[0].is_none() && replies[1].is_some(), "{replies:?}");
    worker.stop().await;

    let (redis, client, queue) = redis("reply").await;
    let add = |to: &str| {
        json!([
            "XADD",
            stream_key(&queue),
            "*",
            "type",
            "job",
            "body",
            "{\"number\":1}",
            "reply_to",
            to
        ])
    };
    plain::redis(&redis, &[add("ls:{orders}:stream"), add("ls:reply:x")]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let replies: Vec<_> = witness
        .starts(2)
        .await
        .into_iter()
        .map(|s| s.envelope.reply_to)
        .collect();
    assert!(replies[0].is_none() && replies[1].is_some(), "{replies:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_messages_without_a_type_go_to_the_dead_letters_as_having_no_handler() {
    let (amqp, client, queue) = rabbitmq("untyped").await;
    let message = |properties: Value| json!({"to": queue.name(), "body": "{\"number\":7}", "properties": properties});
    plain::amqp(
        &amqp,
        &[
            message(json!({})),
            message(json!({"type": ""})),
            message(json!({"type": "JOB"})),
        ],
    )
    .await;
    are_without_handler(&client, &queue, 3).await;

    let (redis, client, queue) = redis("untyped").await;
    let add = json!(["XADD", stream_key(&queue), "*", "body", "{\"number\":7}"]);
    let typed = json!([
        "XADD",
        stream_key(&queue),
        "*",
        "body",
        "{\"number\":7}",
        "type",
        "jobs"
    ]);
    plain::redis(&redis, &[add, typed]).await;
    are_without_handler(&client, &queue, 2).await;
}

async fn are_without_handler(client: &Client, queue: &Queue, count: usize) {
    let witness = Witness::default();
    let worker = witness.worker(client, queue, fine).await.unwrap();
    let letters = dead(client, queue, count).await;
    worker.stop().await;
    for letter in &letters {
        assert_eq!(letter.reason, Reason::NoHandler, "{letter:?}");
        assert_eq!(&letter.envelope.body[..], b"{\"number\":7}");
    }
    assert!(witness.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_on_rabbitmq_takes_what_pika_publishes_to_its_exchange() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let topic = Topic::new(&unique("topic"));
    let queue = Queue::new(&unique("bound")).subscribe_to(&topic);
    client.declare(&queue).await.unwrap();
    let message = json!({
        "exchange": topic.name(), "to": "normal.0.0.0.0.0.0.0.0", "body": "{\"number\":9}", "properties": {"type": "job"}
    });
    plain::amqp(&url, &[message]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    assert_eq!(witness.starts(1).await[0].number, 9);
    worker.stop().await;
}
