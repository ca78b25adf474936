//! Plain clients publish to a queue with sessions: into its plain queue, or straight into a partition.

use std::{collections::BTreeMap, time::Duration};

use longshore::{Client, Queue, Reason};
use longshore_testing::brokers;
use longshore_tests::{
    plain, unique,
    waiting::until,
    witness::{Witness, dead},
};
use serde_json::{Value, json};

use crate::{fine, stream_key};

const KEYS: [&str; 5] = ["customer-1", "customer-2", "a", "foobar", "ünï – code"];
const MESSAGES: usize = 60;

/// As `docs/wire.md` says it, and nothing of ours.
fn partition(key: &str, partitions: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for octet in key.bytes() {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    hash & (partitions - 1)
}

async fn with_sessions(url: &str, name: &str) -> (Client, Queue) {
    let client = longshore::connect(url).await.unwrap();
    let queue = Queue::new(&unique(name)).sessions(16);
    client.declare(&queue).await.unwrap();
    (client, queue)
}

/// Jobs 0, 1, 2, … with the keys in turn.
fn jobs() -> Vec<(&'static str, String)> {
    let body = |number| json!({"number": number}).to_string();
    (0..MESSAGES)
        .map(|n| (KEYS[n % KEYS.len()], body(n)))
        .collect()
}

/// Waits until all are handled, and checks that each key was in its order. A session fails now and
/// then, which must not change anything.
async fn are_handled_in_order(client: &Client, queue: &Queue) {
    let witness = Witness::default();
    let fails = |job: &longshore_tests::job::Job, cx: &longshore::Context| match cx.attempt() {
        1 if job.number.is_multiple_of(7) => Err("not yet".into()),
        _ => Ok(()),
    };
    let worker = witness.worker(client, queue, fails).await.unwrap();
    let retries = MESSAGES.div_ceil(7);
    let seen = witness.starts(MESSAGES + retries).await;
    worker.stop().await;
    let mut by_key = BTreeMap::<&str, Vec<u64>>::new();
    for sight in &seen {
        let key = sight.envelope.key.as_deref().unwrap_or_default();
        let numbers = by_key.entry(key).or_default();
        match sight.attempt {
            1 => numbers.push(sight.number),
            _ => assert_eq!(numbers.last(), Some(&sight.number), "another came between"),
        }
    }
    for (n, key) in KEYS.iter().enumerate() {
        let expected: Vec<u64> = (n as u64..MESSAGES as u64).step_by(KEYS.len()).collect();
        assert_eq!(by_key[key], expected, "{key}");
    }
    assert_eq!(by_key.len(), KEYS.len());
    let stats = client.stats(queue).await.unwrap();
    assert_eq!((stats.ready, stats.dead), (0, 0));
}

fn keyed(key: &str) -> Value {
    json!({"type": "job", "headers": {"longshore-key": key}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_publishes_with_keys_to_the_plain_queue_is_handled_in_the_order_of_its_keys() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue) = with_sessions(&url, "forwarded").await;
    let publish: Vec<Value> = jobs()
        .iter()
        .map(|(key, body)| json!({"to": queue.name(), "body": body, "properties": keyed(key)}))
        .collect();
    plain::amqp(&url, &publish).await;
    are_handled_in_order(&client, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_py_adds_with_keys_to_the_plain_stream_is_handled_in_the_order_of_its_keys() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_sessions(&url, "forwarded").await;
    let stream = stream_key(&queue);
    let add = |(key, body): &(&str, String)| {
        plain::add(&stream, &[("type", "job"), ("body", body), ("key", key)])
    };
    plain::redis(&url, &jobs().iter().map(add).collect::<Vec<_>>()).await;
    are_handled_in_order(&client, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_publishes_into_the_partition_of_its_key_is_handled_in_order() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue) = with_sessions(&url, "straight").await;
    let publish: Vec<Value> = jobs()
        .iter()
        .map(|(key, body)| {
            let to = format!("{}.s16.{:02}", queue.name(), partition(key, 16));
            json!({"to": to, "body": body, "properties": keyed(key)})
        })
        .collect();
    plain::amqp(&url, &publish).await;
    are_handled_in_order(&client, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_py_adds_to_the_partition_of_its_key_is_handled_in_order() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_sessions(&url, "straight").await;
    let add = |(key, body): &(&str, String)| {
        let stream = format!(
            "ls:{{{}.s16.{:02}}}:stream",
            queue.name(),
            partition(key, 16)
        );
        plain::add(&stream, &[("type", "job"), ("body", body), ("key", key)])
    };
    plain::redis(&url, &jobs().iter().map(add).collect::<Vec<_>>()).await;
    are_handled_in_order(&client, &queue).await;
}

/// Without a key nobody knows where a message belongs; those with one go on.
async fn without_a_key_they_are_dead(client: &Client, queue: &Queue) {
    let witness = Witness::default();
    let worker = witness.worker(client, queue, fine).await.unwrap();
    let letters = dead(client, queue, 3).await;
    let seen = witness.starts(1).await;
    worker.stop().await;
    for letter in &letters {
        assert_eq!(
            (&letter.reason, letter.attempts),
            (&Reason::KeyMissing, 0),
            "{letter:?}"
        );
    }
    assert_eq!(letters.len(), 3);
    assert_eq!(seen[0].number, 7);
    until("the rest is empty", Duration::from_secs(10), async || {
        (client.stats(queue).await.unwrap().ready == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_publishes_without_a_key_is_dead_as_missing_one() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue) = with_sessions(&url, "keyless").await;
    let partition = format!("{}.s16.03", queue.name());
    let plain_queue = queue.name();
    let message = |to: &str, properties: Value| json!({"to": to, "body": "{\"number\":7}", "properties": properties});
    plain::amqp(
        &url,
        &[
            message(plain_queue, json!({"type": "job"})),
            message(plain_queue, keyed("")),
            message(&partition, json!({"type": "job"})),
            message(plain_queue, keyed("customer-1")),
        ],
    )
    .await;
    without_a_key_they_are_dead(&client, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_py_adds_without_a_key_is_dead_as_missing_one() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_sessions(&url, "keyless").await;
    let partition = format!("ls:{{{}.s16.03}}:stream", queue.name());
    let plain_stream = stream_key(&queue);
    let own = [("type", "job"), ("body", "{\"number\":7}")];
    let with = |key| [&own[..], &[("key", key)]].concat();
    plain::redis(
        &url,
        &[
            plain::add(&plain_stream, &own),
            plain::add(&plain_stream, &with("")),
            plain::add(&partition, &own),
            plain::add(&plain_stream, &with("customer-1")),
        ],
    )
    .await;
    without_a_key_they_are_dead(&client, &queue).await;
}
