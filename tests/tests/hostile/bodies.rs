//! Bodies that are too large, or that nobody can decode.

use std::time::Duration;

use longshore::Reason;
use longshore_testing::brokers;
use longshore_tests::{
    plain,
    raw_amqp::{
        Property::{ContentType, Type},
        RawAmqp,
    },
    waiting::until,
};
use serde_json::json;

use crate::{CANARY, MIB, endures, endures_entries, job, key, on_rabbitmq, on_redis, with_body};

/// Valid JSON of exactly so many bytes.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = b"{\"number\":1000000}".to_vec();
    body.resize(bytes, b' ');
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_1_mib_is_handled_and_one_byte_more_is_too_large() {
    let scene = on_rabbitmq("body").await;
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    raw.publish(scene.queue.name(), &with_body(padded(MIB)))
        .unwrap();
    let over = vec![
        (
            "a byte too many".to_owned(),
            with_body(padded(MIB + 1)),
            Reason::TooLarge,
        ),
        (
            "that which is not even JSON".to_owned(),
            with_body(vec![0; MIB + 1]),
            Reason::TooLarge,
        ),
    ];
    endures(scene, over).await;

    let mut scene = on_redis("body").await;
    let stream = key(&scene.queue, "stream");
    let add = |bytes: usize| {
        json!([
            "XADD",
            stream,
            "*",
            "type",
            "job",
            "body",
            String::from_utf8(padded(bytes)).unwrap()
        ])
    };
    plain::redis(&scene.url, &[add(MIB), add(MIB + 1)]).await;
    let letter = scene.sets_aside(1).await.remove(0);
    assert_eq!(letter.reason, Reason::TooLarge, "{letter:?}");
    assert!(
        letter.detail.contains(&(MIB + 1).to_string()),
        "{}",
        letter.detail
    );
    scene.stop().await;
    scene
        .client
        .dead_letters(&scene.queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    let back = plain::stream(&scene.url, &stream).await;
    assert_eq!(back[0][1][3].as_str().map(str::len), Some(MIB + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_20_mib_on_rabbitmq_never_fill_the_memory_of_a_service() {
    let scene = on_rabbitmq("huge").await;
    // RabbitMQ 4 itself refuses bodies above 16 MiB.
    let version = brokers::server_version(&scene.url).await.unwrap();
    let mib = if version.number.starts_with('3') {
        20
    } else {
        15
    };
    let before = scene.peak_kib();
    let bodies = (0..4).map(|n| {
        (
            format!("body {n} of {mib} MiB"),
            with_body(vec![b'0' + n; mib * MIB]),
            Reason::TooLarge,
        )
    });
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    let mut scene = scene;
    for (n, (what, message, reason)) in bodies.enumerate() {
        raw.publish(scene.queue.name(), &message).unwrap();
        let letters = scene.sets_aside(n + 1).await;
        assert_eq!(letters[n].reason, reason, "{what}");
    }
    let grown = scene.peak_kib() - before;
    println!("{before} KiB, then {grown} KiB more");
    assert!(grown < 8 * 1024, "the service grew by {grown} KiB");
    let mut found = 0;
    let dlq = format!("{}.dlq", scene.queue.name());
    while let Some(whole) = until(
        "the dead letters are free",
        Duration::from_secs(10),
        async || Some(raw.get(&dlq).unwrap()).filter(|got| got.is_some() || found == 4),
    )
    .await
    {
        assert_eq!(whole.body.len(), mib * MIB);
        found += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_20_mib_on_redis_is_set_aside_whole() {
    let mut scene = on_redis("huge").await;
    let stream = key(&scene.queue, "stream");
    let before = scene.peak_kib();
    let body = "x".repeat(20 * MIB);
    plain::redis(
        &scene.url,
        &[json!(["XADD", stream, "*", "type", "job", "body", body])],
    )
    .await;
    let letter = scene.sets_aside(1).await.remove(0);
    assert_eq!(letter.reason, Reason::TooLarge);
    let grown = scene.peak_kib() - before;
    println!("{before} KiB, then {grown} KiB more");
    assert!(grown < 100 * 1024, "the service grew by {grown} KiB");
    scene.stop().await;
    scene
        .client
        .dead_letters(&scene.queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    let back = plain::stream(&scene.url, &stream).await;
    assert!(
        back[0][1] == plain::redriven(&json!(["type", "job", "body", body])),
        "other than it was added"
    );
}

/// Bodies nobody can decode, each holding or surrounded by a secret.
fn undecodable() -> Vec<(&'static str, Vec<u8>)> {
    let deep =
        |open: &str, close: &str| (open.repeat(100_000) + &close.repeat(100_000)).into_bytes();
    vec![
        ("nothing", Vec::new()),
        (
            "half of JSON",
            format!("{{\"number\":\"{CANARY}").into_bytes(),
        ),
        ("no JSON", CANARY.into()),
        (
            "another shape",
            format!("{{\"number\":\"{CANARY}\"}}").into_bytes(),
        ),
        (
            "a key that is the secret",
            format!("{{\"{CANARY}\":1}}").into_bytes(),
        ),
        ("an array", format!("[\"{CANARY}\"]").into_bytes()),
        (
            "a number too large",
            format!("{{\"number\":1e999,\"x\":\"{CANARY}\"}}").into_bytes(),
        ),
        ("arrays nested 100,000 deep", deep("[", "]")),
        ("objects nested 100,000 deep", deep("{\"n\":", "}")),
        ("no UTF-8", b"{\"number\":7,\"x\":\"\xff\xfe\"".to_vec()),
        (
            "bytes after the JSON",
            format!("{{\"number\":7}} {CANARY}").into_bytes(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_bodies_are_set_aside_on_rabbitmq_and_what_they_hold_is_told_nowhere() {
    let messages = undecodable()
        .into_iter()
        .map(|(what, body)| (what.to_owned(), with_body(body), Reason::Undecodable));
    let mut messages: Vec<_> = messages.collect();
    let mut pickle = job();
    pickle.properties = pickle
        .properties
        .with(ContentType, "application/x-python-serialize");
    messages.push((
        "another content type".to_owned(),
        pickle,
        Reason::Undecodable,
    ));
    let mut unknown = with_body(CANARY);
    unknown.properties = unknown.properties.with(Type, "std::process::Command");
    messages.push(("another type".to_owned(), unknown, Reason::NoHandler));
    let scene = endures(on_rabbitmq("undecodable").await, messages).await;
    assert!(!scene.logged().contains(CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_bodies_are_set_aside_on_redis_and_what_they_hold_is_told_nowhere() {
    let mut entries: Vec<_> = undecodable()
        .into_iter()
        .map(|(what, body)| {
            (
                what,
                json!(["type", "job", "body", plain::bytes(&body)]),
                Reason::Undecodable,
            )
        })
        .collect();
    let pickle = json!([
        "type",
        "job",
        "body",
        "{}",
        "content_type",
        "application/x-python-serialize"
    ]);
    entries.push(("another content type", pickle, Reason::Undecodable));
    let unknown = json!(["type", "std::process::Command", "body", CANARY]);
    entries.push(("another type", unknown, Reason::NoHandler));
    let scene = endures_entries(on_redis("undecodable").await, entries).await;
    assert!(!scene.logged().contains(CANARY));
}
