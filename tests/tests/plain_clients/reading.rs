//! What Longshore publishes reads naturally in a plain client.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use longshore::{Client, Queue};
use longshore_tests::{job::Job, plain};
use serde_json::{Value, json};

use crate::{is_about, rabbitmq, redis, stream_key};

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
