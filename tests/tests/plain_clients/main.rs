//! Clients that are not ours, in both directions, against what `docs/wire.md` says.

#![allow(clippy::unwrap_used)]

mod answers;
mod dead_letters;
mod declared;
mod documented;
mod lanes;
mod publishing;
mod reading;
mod requests;
mod sessions;
mod windows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longshore::{Client, HandlerError, Queue};
use longshore_testing::brokers;
use longshore_tests::{job::Job, plain, unique};
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

fn millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Within a minute of `expected`, in milliseconds.
fn is_about(found: u64, expected: SystemTime) -> bool {
    found.abs_diff(millis(expected)) < 60_000
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
