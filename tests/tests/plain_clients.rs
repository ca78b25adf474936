//! Clients that are not ours, in both directions, against what `docs/wire.md` says.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use longshore::{Client, DeadLetter, HandlerError, Queue, Reason};
use longshore_testing::brokers::{self, Broker, BrokerKind};
use longshore_tests::{
    job::Job,
    plain,
    raw_amqp::{
        Properties,
        Property::{Expiration, Headers, Type},
        RawAmqp, RawMessage, entry,
    },
    unique,
    waiting::until,
    witness::{Sight, Witness, dead, only_dead},
};
use serde_json::{Value, json};

async fn rabbitmq(name: &str) -> (String, Client, Queue) {
    with_queue(brokers::amqp_url().unwrap(), name).await
}

async fn redis(name: &str) -> (String, Client, Queue) {
    with_queue(brokers::redis_url().unwrap(), name).await
}

async fn with_queue(url: String, name: &str) -> (String, Client, Queue) {
    let client = longshore::connect(&url).await.unwrap();
    let queue = Queue::new(&unique(name));
    client.declare(&queue).await.unwrap();
    (url, client, queue)
}

fn stream_key(queue: &Queue) -> String {
    format!("ls:{{{}}}:stream", queue.name())
}

fn dead_key(queue: &Queue) -> String {
    format!("ls:{{{}}}:dead", queue.name())
}

fn fine(_: &Job, _: &longshore::Context) -> Result<(), HandlerError> {
    Ok(())
}

/// Fails once in a way that waits on the broker, then for good.
fn fails_twice(_: &Job, cx: &longshore::Context) -> Result<(), HandlerError> {
    match cx.attempt() {
        1 => Err(HandlerError::retry_after(
            Duration::from_millis(120),
            "not yet",
        )),
        _ => Err(HandlerError::permanent("never")),
    }
}

fn headers(sight: &Sight) -> BTreeMap<String, Vec<u8>> {
    let headers = sight.envelope.headers.iter();
    headers
        .map(|(name, value)| (name.to_string(), value.to_vec()))
        .collect()
}

fn millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Within a minute of `expected`, in milliseconds.
fn is_about(found: u64, expected: SystemTime) -> bool {
    found.abs_diff(millis(expected)) < 60_000
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

/// Everything a plain AMQP client can set.
fn everything(url: &str) -> Value {
    let login = url
        .strip_prefix("amqp://")
        .unwrap()
        .split_once('@')
        .unwrap()
        .0;
    json!({
        "content_type": "application/json; charset=utf-8",
        "content_encoding": "utf-8",
        "delivery_mode": 1,
        "priority": 7,
        "correlation_id": "correlation 1",
        "reply_to": "amq.gen-replies",
        "expiration": "600000",
        "message_id": "message 1",
        "timestamp": 1_700_000_000,
        "type": "job",
        "user_id": login.split_once(':').unwrap().0,
        "app_id": "an application",
        "cluster_id": "a cluster",
        "headers": {
            "text": "ünï – code",
            "empty": "",
            "small": 42,
            "negative": -7,
            "large": 1_099_511_627_776_i64,
            "flag": true,
            "nothing": null,
            "bytes": plain::bytes(&[0xff, 0, 1]),
            "when": {"$timestamp": 1_600_000_000},
            "price": {"$decimal": "12.34"},
            "list": [1, "two", {"three": 3}],
            "table": {"a": {"b": [true, null]}, "c": "d"},
            "x-tenant": "with a customary prefix",
            "longshore-key": "customer-42",
        },
    })
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
    plain::amqp(
        &amqp,
        &[message("orders"), message("amq.rabbitmq.reply-to.g1h2.x")],
    )
    .await;
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

async fn publish_everything(client: &Client, queue: &Queue) {
    client
        .publish(queue, &Job { number: 7 })
        .id("message 1")
        .key("customer-42")
        .correlation_id("correlation 1")
        .expires_after(Duration::from_secs(600))
        .header("tenant", "blüe")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .await
        .unwrap();
    client.publish(queue, &Job { number: 8 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_reads_what_longshore_publishes_exactly_as_the_wire_format_says() {
    let (url, client, queue) = rabbitmq("read").await;
    publish_everything(&client, &queue).await;
    let take = json!({"from": queue.name(), "take": true});
    let messages = plain::amqp(&url, &[take.clone(), take]).await;

    let properties = &messages[0]["properties"];
    let sent = properties["headers"]["longshore-sent-at"].as_u64().unwrap();
    let expires = properties["headers"]["longshore-expires-at"]
        .as_u64()
        .unwrap();
    assert!(is_about(sent, SystemTime::now()));
    assert_eq!(expires, sent + 600_000);
    let expected = json!({
        "content_type": "application/json",
        "delivery_mode": 2,
        "correlation_id": "correlation 1",
        "message_id": "message 1",
        "timestamp": sent / 1000,
        "type": "job",
        "headers": {
            "longshore-key": "customer-42",
            "longshore-sent-at": sent,
            "longshore-expires-at": expires,
            "tenant": "blüe",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
    });
    assert_eq!(
        messages[0],
        json!({"properties": expected, "body": "{\"number\":7}"})
    );

    let properties = &messages[1]["properties"];
    let sent = properties["headers"]["longshore-sent-at"].as_u64().unwrap();
    let id = properties["message_id"].as_str().unwrap();
    assert!((1..=128).contains(&id.len()), "{id}");
    let expected = json!({
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": id,
        "timestamp": sent / 1000,
        "type": "job",
        "headers": {"longshore-sent-at": sent},
    });
    assert_eq!(
        messages[1],
        json!({"properties": expected, "body": "{\"number\":8}"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_py_reads_what_longshore_publishes_exactly_as_the_wire_format_says() {
    let (url, client, queue) = redis("read").await;
    publish_everything(&client, &queue).await;
    let entries = plain::stream(&url, &stream_key(&queue)).await;
    let fields = |entry: &Value| -> BTreeMap<String, String> {
        let fields = entry[1].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pairs = fields
            .chunks(2)
            .map(|pair| (text(&pair[0]), text(&pair[1])));
        pairs.collect()
    };
    let first = fields(&entries[0]);
    let sent: u64 = first["sent_at"].parse().unwrap();
    assert!(is_about(sent, SystemTime::now()));
    let expires = (sent + 600_000).to_string();
    let expected = [
        ("type", "job"),
        ("body", "{\"number\":7}"),
        ("id", "message 1"),
        ("key", "customer-42"),
        ("content_type", "application/json"),
        ("correlation_id", "correlation 1"),
        ("sent_at", &first["sent_at"]),
        ("expires_at", &expires),
        ("h.tenant", "blüe"),
        (
            "h.traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    assert_eq!(first, expected);
    let second = fields(&entries[1]);
    let names: Vec<_> = second.keys().map(String::as_str).collect();
    assert_eq!(names, ["body", "content_type", "id", "sent_at", "type"]);
}

/// A message with everything pika can set, dead after two attempts, and the same as it arrives in a
/// queue where nobody touches it.
async fn dead_on_rabbitmq() -> (String, Client, Queue, DeadLetter, RawMessage) {
    let (url, client, queue) = rabbitmq("round").await;
    let reference = Queue::new(&unique("reference"));
    client.declare(&reference).await.unwrap();
    let to = |queue: &Queue| json!({"to": queue.name(), "body": plain::bytes(b"{\"number\": 7} "), "properties": everything(&url)});
    plain::amqp(&url, &[to(&queue), to(&reference)]).await;
    let mut raw = RawAmqp::connect(&url).unwrap();
    let first_published = raw.get(reference.name()).unwrap().unwrap();
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fails_twice).await.unwrap();
    let letter = only_dead(&client, &queue).await;
    worker.stop().await;
    assert_eq!(
        (&letter.reason, letter.attempts, letter.redrivable),
        (&Reason::Permanent, 2, true)
    );
    (url, client, queue, letter, first_published)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_pika_is_whole_in_the_dead_letters() {
    let (url, _, queue, _, _) = dead_on_rabbitmq().await;
    let dlq = format!("{}.dlq", queue.name());
    let found = plain::amqp(&url, &[json!({"from": dlq})]).await.remove(0);
    assert_eq!(found["body"], "{\"number\": 7} ");
    let (dead, original) = (&found["properties"], everything(&url));
    for (name, value) in original.as_object().unwrap() {
        match &**name {
            "headers" => {}
            "delivery_mode" => assert_eq!(dead[name], 2, "dead letters are durable"),
            "priority" | "expiration" | "user_id" => {
                assert_eq!(dead[name], Value::Null, "a copy cannot carry {name}");
            }
            _ => assert_eq!(&dead[name], value, "{name}"),
        }
    }
    for (name, value) in original["headers"].as_object().unwrap() {
        assert_eq!(&dead["headers"][name], value, "header {name}");
    }
    let headers = &dead["headers"];
    assert_eq!(headers["longshore-dead-reason"], "permanent");
    assert_eq!(headers["longshore-dead-detail"], "never");
    assert_eq!(headers["longshore-dead-queue"], queue.name());
    assert_eq!(headers["longshore-dead-attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_cannot_carry_is_in_the_headers_the_wire_format_names() {
    let (url, _, queue, _, _) = dead_on_rabbitmq().await;
    let dlq = format!("{}.dlq", queue.name());
    let found = plain::amqp(&url, &[json!({"from": dlq})]).await.remove(0);
    let headers = &found["properties"]["headers"];
    let original = everything(&url);
    let expected = json!({
        "delivery-mode": original["delivery_mode"],
        "expiration": original["expiration"],
        "priority": original["priority"],
    });
    assert_eq!(headers["longshore-original"], expected, "{headers}");
    assert_eq!(
        headers["longshore-user-id"], original["user_id"],
        "{headers}"
    );
    let at = headers["longshore-dead-time"].as_u64().unwrap();
    assert!(is_about(at, SystemTime::now()));
    let expires = headers["longshore-expires-at"].as_u64().unwrap();
    assert!(is_about(
        expires,
        SystemTime::now() + Duration::from_secs(600)
    ));
    let known = [
        "longshore-original",
        "longshore-user-id",
        "longshore-key",
        "longshore-expires-at",
        "longshore-dead-reason",
        "longshore-dead-detail",
        "longshore-dead-attempts",
        "longshore-dead-queue",
        "longshore-dead-time",
    ];
    let names = headers.as_object().unwrap().keys();
    let mut unknown = names
        .filter(|name| name.starts_with("longshore-") || name.starts_with("x-d"))
        .filter(|name| !known.contains(&name.as_str()));
    assert_eq!(unknown.next(), None, "an undocumented header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_pika_comes_back_from_the_dead_letters_as_it_was_first_published() {
    let (url, client, queue, letter, first_published) = dead_on_rabbitmq().await;
    let letters = client.dead_letters(&queue);
    letters.redrive(&letter.id).await.unwrap();
    let mut raw = RawAmqp::connect(&url).unwrap();
    let back = raw.get(queue.name()).unwrap().unwrap();
    assert_eq!(back.body, first_published.body);
    assert_eq!(
        back.properties.canonical(),
        first_published.properties.canonical()
    );
    assert!(letters.peek().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_pika_with_nothing_but_a_body_also_comes_back_as_it_was_first_published() {
    let (url, client, queue) = rabbitmq("bare").await;
    plain::amqp(
        &url,
        &[json!({"to": queue.name(), "body": plain::bytes(&[0, 255, 7])})],
    )
    .await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let letter = only_dead(&client, &queue).await;
    worker.stop().await;
    assert_eq!(
        (letter.reason, &letter.envelope.body[..]),
        (Reason::NoHandler, &[0, 255, 7][..])
    );
    assert!(witness.seen().is_empty());
    client
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    let back = RawAmqp::connect(&url)
        .unwrap()
        .get(queue.name())
        .unwrap()
        .unwrap();
    assert_eq!(back.body, [0, 255, 7]);
    assert!(back.properties.0.is_empty(), "{:?}", back.properties);
}

/// An entry with fields of every kind, dead after two attempts.
async fn dead_on_redis() -> (String, Client, Queue, DeadLetter, Value) {
    let (url, client, queue) = redis("round").await;
    let fields = [
        ["zulu", "first"],
        ["body", "{\"number\": 7} "],
        ["h.tenant", "blue"],
        ["type", "job"],
        ["h.tenant", "green"],
        ["zulu", "again"],
        ["", "empty name"],
        ["dead.reason", "not ours"],
        ["sent_at", "no number"],
    ];
    let mut fields: Vec<Value> = fields.concat().into_iter().map(Value::from).collect();
    fields.extend([plain::bytes(&[0xfe]), plain::bytes(&[0xff, 0])]);
    let mut add = vec![json!("XADD"), json!(stream_key(&queue)), json!("*")];
    add.extend(fields.clone());
    plain::redis(&url, &[add.into()]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fails_twice).await.unwrap();
    let letter = only_dead(&client, &queue).await;
    worker.stop().await;
    assert_eq!(
        (&letter.reason, letter.attempts, &*letter.detail),
        (&Reason::Permanent, 2, "never")
    );
    (url, client, queue, letter, fields.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_redis_py_is_whole_in_the_dead_letters_field_by_field() {
    let (url, _, queue, _, fields) = dead_on_redis().await;
    let entries = plain::stream(&url, &dead_key(&queue)).await;
    let dead = entries[0][1].as_array().unwrap();
    let (original, ours) = dead.split_at(dead.len() - 10);
    let at: u64 = ours[9].as_str().unwrap().parse().unwrap();
    assert!(is_about(at, SystemTime::now()));
    let (name, at) = (queue.name(), at.to_string());
    let expected = [
        ["dead.reason", "permanent"],
        ["dead.detail", "never"],
        ["dead.attempts", "2"],
        ["dead.queue", name],
        ["dead.at", &at],
    ];
    assert_eq!(ours, expected.concat());
    assert_eq!(
        Value::from(original.to_vec()),
        fields,
        "in order, duplicates too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_redis_py_comes_back_from_the_dead_letters_as_it_was_first_added() {
    let (url, client, queue, letter, fields) = dead_on_redis().await;
    let letters = client.dead_letters(&queue);
    letters.redrive(&letter.id).await.unwrap();
    let back = plain::stream(&url, &stream_key(&queue)).await;
    assert_eq!(back.len(), 1);
    assert_eq!(back[0][1], fields);
    assert!(letters.peek().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_plain_expiration_passes_on_the_broker_is_dead_as_expired_and_comes_back() {
    let (url, client, queue) = rabbitmq("expired").await;
    let properties = json!({"type": "job", "expiration": "1500", "headers": {"n": 1}});
    plain::amqp(
        &url,
        &[json!({"to": queue.name(), "body": "{\"number\":7}", "properties": properties})],
    )
    .await;
    let letter = only_dead(&client, &queue).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Expired, 0));
    assert_eq!(&letter.envelope.body[..], b"{\"number\":7}");
    client
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    // At once: it expires again.
    let mut raw = RawAmqp::connect(&url).unwrap();
    let back = raw.get(queue.name()).unwrap().unwrap();
    let expected = Properties::default()
        .with(Headers, entry(b"n", b'I', &1_i32.to_be_bytes()))
        .with(Expiration, "1500")
        .with(Type, "job");
    assert_eq!(
        (back.properties, &*back.body),
        (expected, &b"{\"number\":7}"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_whose_expiry_has_passed_is_dead_as_expired_and_never_handled() {
    let (url, client, queue) = redis("expired").await;
    let past = (millis(SystemTime::now()) - 1000).to_string();
    let add = json!([
        "XADD",
        stream_key(&queue),
        "*",
        "type",
        "job",
        "body",
        "{\"number\":7}",
        "expires_at",
        past
    ]);
    plain::redis(&url, &[add]).await;
    let witness = Witness::default();
    let worker = witness.worker(&client, &queue, fine).await.unwrap();
    let letter = only_dead(&client, &queue).await;
    worker.stop().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Expired, 0));
    assert!(witness.seen().is_empty());
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
async fn the_arguments_of_queues_on_rabbitmq_are_those_of_the_wire_format() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let queue = Queue::new("orders");
    let delayed = client.publish(&queue, &Job { number: 1 });
    delayed.delay(Duration::from_secs(60)).await.unwrap();
    let listed = broker
        .rabbitmqctl(&["list_queues", "name", "durable", "arguments"])
        .await
        .unwrap()
        .replace("\"\"", "[]");
    let consumed = [
        "{\"x-queue-type\",\"quorum\"}",
        "{\"x-delivery-limit\",1000000000}",
        "{\"x-dead-letter-exchange\",[]}",
        "{\"x-dead-letter-routing-key\",\"orders.dlq\"}",
        "{\"x-dead-letter-strategy\",\"at-least-once\"}",
        "{\"x-overflow\",\"reject-publish\"}",
        "{\"x-consumer-timeout\",86400000}",
    ];
    let lines: BTreeMap<&str, (&str, &str)> = listed
        .lines()
        .filter(|line| !line.starts_with("name\tdurable"))
        .filter_map(|line| {
            let (name, rest) = line.split_once('\t')?;
            Some((name, rest.split_once('\t')?))
        })
        .collect();
    for (name, expected) in [
        ("orders", &consumed[..]),
        ("orders.quarantine", &consumed),
        ("orders.dlq", &consumed[..2]),
        ("longshore.delay.v1.30.lost", &consumed[..2]),
    ] {
        let (durable, arguments) = lines[name];
        assert_eq!(durable, "true", "{name}");
        for argument in expected {
            assert!(
                arguments.contains(argument),
                "{name} lacks {argument}: {arguments}"
            );
        }
        assert_eq!(
            arguments.matches("\"x-").count(),
            expected.len(),
            "{name}: {arguments}"
        );
    }
    for level in 0..30_u32 {
        let name = format!("longshore.delay.v1.30.{level:02}");
        let found = lines.get(&*name);
        let (durable, arguments) =
            found.unwrap_or_else(|| panic!("no {name} among {:?}", lines.keys()));
        assert_eq!(*durable, "true");
        let below = match level {
            0 => "longshore.delay.v1.30.delivery".to_owned(),
            _ => format!("longshore.delay.v1.30.{:02}", level - 1),
        };
        for argument in [
            format!("{{\"x-message-ttl\",{}}}", 50_u64 << level),
            format!("{{\"x-dead-letter-exchange\",\"{below}\"}}"),
            "{\"x-dead-letter-strategy\",\"at-least-once\"}".to_owned(),
            "{\"x-overflow\",\"reject-publish\"}".to_owned(),
            "{\"x-queue-type\",\"quorum\"}".to_owned(),
            "{\"x-delivery-limit\",1000000000}".to_owned(),
        ] {
            assert!(
                arguments.contains(&argument),
                "level {level} lacks {argument}: {arguments}"
            );
        }
        assert_eq!(
            arguments.matches("\"x-").count(),
            6,
            "level {level}: {arguments}"
        );
    }
    let others: Vec<_> = lines
        .keys()
        .filter(|name| !name.starts_with("orders") && !name.starts_with("longshore.delay.v1.30."))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_on_rabbitmq_takes_what_pika_publishes_to_its_exchange() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let topic = longshore::Topic::new(&unique("topic"));
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

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_redis_are_those_of_the_wire_format() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let (topic, name) = (longshore::Topic::new(&unique("topic")), unique("keys"));
    let queue = Queue::new(&name).subscribe_to(&topic);
    client.declare(&queue).await.unwrap();
    client
        .publish(&queue, &Job { number: 1 })
        .delay(Duration::from_secs(3600))
        .await
        .unwrap();
    client.publish(&queue, &Job { number: 2 }).await.unwrap();
    let witness = Witness::default();
    let worker = witness
        .worker(&client, &queue, |_, _| Err(HandlerError::permanent("no")))
        .await
        .unwrap();
    dead(&client, &queue, 1).await;
    worker.stop().await;
    let key = |what: &str| format!("ls:{{{name}}}:{what}");
    let topic_key = format!("ls:topic:{{{}}}", topic.name());
    let replies = plain::redis(
        &url,
        &[
            json!(["TYPE", key("stream")]),
            json!(["TYPE", key("delayed")]),
            json!(["TYPE", key("dead")]),
            json!(["TYPE", topic_key]),
            json!(["SMEMBERS", topic_key]),
            json!(["XLEN", key("stream")]),
            json!(["ZRANGE", key("delayed"), "0", "-1", "WITHSCORES"]),
            json!(["XINFO", "GROUPS", key("stream")]),
            json!(["KEYS", format!("*{name}*")]),
        ],
    )
    .await;
    assert_eq!(
        replies[..4],
        [
            json!("stream"),
            json!("zset"),
            json!("stream"),
            json!("set")
        ]
    );
    assert_eq!(replies[4], json!([name]));
    assert_eq!(replies[5], 0, "what is done is deleted");
    let due: f64 = replies[6][1].as_str().unwrap().parse().unwrap();
    assert!(
        (due - millis(SystemTime::now()) as f64 - 3_600_000.0).abs() < 60_000.0,
        "{due}"
    );
    assert_eq!(replies[7].as_array().unwrap().len(), 1);
    assert_eq!(replies[7][0][1], "longshore");
    let known = ["stream", "delayed", "dead", "wake"].map(key);
    for found in replies[8].as_array().unwrap() {
        assert!(
            known.iter().any(|key| found == key),
            "an undocumented key: {found}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_takes_from_the_dead_letters_is_gone_for_us_too() {
    let (url, client, queue) = rabbitmq("taken").await;
    plain::amqp(&url, &[json!({"to": queue.name(), "body": "?"})]).await;
    let worker = Witness::default()
        .worker(&client, &queue, fine)
        .await
        .unwrap();
    let letter = only_dead(&client, &queue).await;
    worker.stop().await;
    let dlq = format!("{}.dlq", queue.name());
    // The letter is back at the head a moment after it was looked at.
    let taken = until(
        "the dead letter is taken",
        Duration::from_secs(10),
        async || {
            let found = plain::amqp(&url, &[json!({"from": dlq, "take": true})])
                .await
                .remove(0);
            Some(found).filter(|found| !found.is_null())
        },
    )
    .await;
    assert_eq!(taken["body"], "?");
    let error = client
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), longshore::ErrorKind::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_oldest_first_however_often_they_are_looked_at() {
    for (url, client, queue) in [rabbitmq("looked").await, redis("looked").await] {
        let witness = Witness::default();
        let never = |_: &Job, _: &longshore::Context| Err(HandlerError::permanent("never"));
        let worker = witness.worker(&client, &queue, never).await.unwrap();
        let mut sent: Vec<String> = Vec::new();
        for number in 0..12 {
            sent.push(format!("job-{number}"));
            let job = client.publish(&queue, &Job { number });
            job.id(sent[sent.len() - 1].clone()).await.unwrap();
            let letters = dead(&client, &queue, sent.len()).await;
            let ids: Vec<_> = letters
                .iter()
                .map(|letter| letter.envelope.id.to_string())
                .collect();
            assert_eq!(ids, sent, "{}", url.split(':').next().unwrap());
        }
        worker.stop().await;
    }
}
