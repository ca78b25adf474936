//! Whoever can only publish cannot crash, block or exhaust a service: what is hostile ends in the
//! dead letters with its reason, and its neighbours do not notice.

#![allow(clippy::unwrap_used)]

mod bodies;
mod fields;
mod floods;
mod forged;
mod headers;
mod marks;
mod sessions;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use longshore::{DeadLetter, ErrorKind, Queue, Reason, Text};
use longshore_testing::brokers;
use longshore_tests::{
    plain,
    raw_amqp::{
        Properties,
        Property::{Headers, Type},
        RawAmqp, RawMessage,
    },
    scene::Scene,
    waiting::until,
    witness::dead,
};
use serde_json::{Value, json};

pub(crate) const CANARY: &str = "canary-4111-1111";
pub(crate) const MIB: usize = 1024 * 1024;

pub(crate) async fn scene(url: &str, name: &str) -> Scene {
    let program = env!("CARGO_BIN_EXE_logging_service");
    Scene::start(program, env!("CARGO_TARGET_TMPDIR"), url, name).await
}

pub(crate) async fn on_rabbitmq(name: &str) -> Scene {
    scene(&brokers::amqp_url().unwrap(), name).await
}

pub(crate) async fn on_redis(name: &str) -> Scene {
    scene(&brokers::redis_url().unwrap(), name).await
}

/// A message unlike any other that would be handled, were it not for what a test adds to it.
pub(crate) fn job() -> RawMessage {
    static NUMBER: AtomicU64 = AtomicU64::new(1_000_000);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    RawMessage {
        properties: Properties::default().with(Type, "job"),
        body: format!("{{\"number\":{number}}}").into_bytes(),
    }
}

pub(crate) fn with_headers(table: Vec<u8>) -> RawMessage {
    let mut message = job();
    message.properties = message.properties.with(Headers, table);
    message
}

pub(crate) fn with_body(body: impl Into<Vec<u8>>) -> RawMessage {
    RawMessage {
        body: body.into(),
        ..job()
    }
}

/// Sends each to the service, looks at what it was set aside for, and once the service is stopped
/// sends back what can be.
pub(crate) async fn endures(
    mut scene: Scene,
    messages: Vec<(String, RawMessage, Reason)>,
) -> Scene {
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    let mut ids: Vec<Text> = Vec::new();
    for (n, (what, message, reason)) in messages.iter().enumerate() {
        raw.publish(scene.queue.name(), message).unwrap();
        let mut letters = scene.sets_aside(n + 1).await;
        letters.retain(|letter| !ids.contains(&letter.id));
        assert_eq!(
            letters.len(),
            1,
            "{what}: the ids of others have changed: {letters:?}"
        );
        let letter = letters.remove(0);
        assert_eq!(&letter.reason, reason, "{what}: {letter:?}");
        started_no_handler(what, &letter);
        assert!(
            letter.detail.len() <= 4096 && !letter.detail.contains(CANARY),
            "{what}"
        );
        ids.push(letter.id);
    }
    scene.stop().await;
    let letters = dead(&scene.client, &scene.queue, messages.len()).await;
    let dead_letters = scene.client.dead_letters(&scene.queue);
    let mut staying = Vec::new();
    for ((what, message, _), id) in messages.iter().zip(&ids) {
        let letter = letters.iter().find(|letter| letter.id == *id);
        let letter = letter.unwrap_or_else(|| panic!("{what} is not listed any more"));
        let back = dead_letters.redrive(id).await;
        if !letter.redrivable {
            assert_eq!(back.unwrap_err().kind(), ErrorKind::Unsupported, "{what}");
            staying.push((what, message));
            continue;
        }
        back.unwrap_or_else(|error| panic!("{what}: {error}"));
        let back = raw.get(scene.queue.name()).unwrap().unwrap();
        is_the_same(what, back, message);
    }
    // What cannot be sent back by us is whole where it is, for whoever can.
    let dlq = format!("{}.dlq", scene.queue.name());
    let mut there = Vec::new();
    while there.len() < staying.len() {
        let next = until("a dead letter", Duration::from_secs(10), async || {
            raw.get(&dlq).unwrap()
        });
        there.push(without_death(next.await));
    }
    for (what, message) in staying {
        let sent = message.properties.clone().canonical();
        let found = there.iter().find(|found| found.body == message.body);
        let found = found.unwrap_or_else(|| panic!("{what}: another body, or none"));
        assert!(
            found.properties.clone().canonical() == sent,
            "{what}: other properties"
        );
    }
    scene
}

/// Finding the route and decoding count as the start of a handler; whatever is found before does not.
pub(crate) fn started_no_handler(what: &str, letter: &DeadLetter) {
    let routed = matches!(letter.reason, Reason::Undecodable | Reason::NoHandler);
    assert!(letter.attempts <= u32::from(routed), "{what}: {letter:?}");
}

pub(crate) fn without_death(mut message: RawMessage) -> RawMessage {
    let brokers = |name: &str| {
        name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
    };
    message.properties = message.properties.without_headers(brokers);
    message
}

pub(crate) fn is_the_same(what: &str, found: RawMessage, sent: &RawMessage) {
    assert!(found.body == sent.body, "{what}: another body");
    let properties = sent.properties.clone().redriven();
    assert!(
        found.properties.canonical() == properties,
        "{what}: other properties"
    );
}

pub(crate) fn nothing_is_forged(scene: &Scene) {
    let logged = scene.logged();
    assert!(
        !logged.contains(['\u{1b}', '\0', '\u{202e}', '\u{2066}']),
        "{logged}"
    );
    let forged = |line: &&str| line.starts_with("INFO forged") || line.contains("INFO forged");
    let forged: Vec<_> = logged
        .lines()
        .filter(forged)
        .filter(|line| !line.contains("\\n"))
        .collect();
    assert!(forged.is_empty(), "{forged:?}");
}

pub(crate) fn key(queue: &Queue, what: &str) -> String {
    format!("ls:{{{}}}:{what}", queue.name())
}

/// As [`endures`], with the fields of stream entries.
pub(crate) async fn endures_entries(
    mut scene: Scene,
    entries: Vec<(&str, Value, Reason)>,
) -> Scene {
    let stream = key(&scene.queue, "stream");
    for (n, (what, fields, reason)) in entries.iter().enumerate() {
        let mut add = vec![json!("XADD"), json!(stream), json!("*")];
        add.extend(fields.as_array().unwrap().clone());
        plain::redis(&scene.url, &[add.into()]).await;
        let letters = scene.sets_aside(n + 1).await;
        let letter = letters.last().unwrap();
        assert_eq!(&letter.reason, reason, "{what}: {letter:?}");
        started_no_handler(what, letter);
        assert!(
            letter.detail.len() <= 4096 && !letter.detail.contains(CANARY),
            "{what}"
        );
    }
    scene.stop().await;
    let letters = dead(&scene.client, &scene.queue, entries.len()).await;
    for ((what, _, _), letter) in entries.iter().zip(&letters) {
        let back = scene
            .client
            .dead_letters(&scene.queue)
            .redrive(&letter.id)
            .await;
        back.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let back = plain::stream(&scene.url, &stream).await;
    for ((what, fields, _), found) in entries.iter().zip(&back) {
        // Bytes that happen to be text are shown as text.
        let read = |value: &Value| match value.get("$bytes") {
            Some(encoded) => encoded.clone(),
            None => plain::bytes(value.as_str().unwrap().as_bytes())["$bytes"].clone(),
        };
        let read =
            |list: &Value| -> Vec<Value> { list.as_array().unwrap().iter().map(read).collect() };
        assert!(
            read(&plain::redriven(fields)) == read(&found[1]),
            "{what} did not come back as it was added"
        );
    }
    assert_eq!(back.len(), entries.len());
    scene
}
