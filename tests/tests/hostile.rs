//! Whoever can only publish cannot crash, block or exhaust a service: what is hostile ends in the
//! dead letters with its reason, and its neighbours do not notice.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use longshore::{Client, DeadLetter, Draft, ErrorKind, HandlerError, Queue, Reason, Text};
use longshore_testing::brokers;
use longshore_tests::{
    plain,
    raw_amqp::{
        Properties,
        Property::{AppId, ContentType, CorrelationId, Headers, MessageId, ReplyTo, Type, UserId},
        RawAmqp, RawMessage, entry, long, nested_arrays, nested_tables, text_entry,
    },
    scene::Scene,
    unique,
    waiting::until,
    witness::{Witness, dead, only_dead},
};
use serde_json::{Value, json};

const CANARY: &str = "canary-4111-1111";

async fn scene(url: &str, name: &str) -> Scene {
    let program = env!("CARGO_BIN_EXE_logging_service");
    Scene::start(program, env!("CARGO_TARGET_TMPDIR"), url, name).await
}

async fn on_rabbitmq(name: &str) -> Scene {
    scene(&brokers::amqp_url().unwrap(), name).await
}

async fn on_redis(name: &str) -> Scene {
    scene(&brokers::redis_url().unwrap(), name).await
}

/// A message unlike any other that would be handled, were it not for what a test adds to it.
fn job() -> RawMessage {
    static NUMBER: AtomicU64 = AtomicU64::new(1_000_000);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    RawMessage {
        properties: Properties::default().with(Type, "job"),
        body: format!("{{\"number\":{number}}}").into_bytes(),
    }
}

fn with_headers(table: Vec<u8>) -> RawMessage {
    let mut message = job();
    message.properties = message.properties.with(Headers, table);
    message
}

fn with_body(body: impl Into<Vec<u8>>) -> RawMessage {
    RawMessage {
        body: body.into(),
        ..job()
    }
}

/// Sends each to the service, looks at what it was set aside for, and once the service is stopped
/// sends back what can be.
async fn endures(mut scene: Scene, messages: Vec<(String, RawMessage, Reason)>) -> Scene {
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
fn started_no_handler(what: &str, letter: &DeadLetter) {
    let routed = matches!(letter.reason, Reason::Undecodable | Reason::NoHandler);
    assert!(letter.attempts <= u32::from(routed), "{what}: {letter:?}");
}

fn without_death(mut message: RawMessage) -> RawMessage {
    let brokers = |name: &str| {
        name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
    };
    message.properties = message.properties.without_headers(brokers);
    message
}

fn is_the_same(what: &str, found: RawMessage, sent: &RawMessage) {
    assert!(found.body == sent.body, "{what}: another body");
    let properties = sent.properties.clone().redriven();
    assert!(
        found.properties.canonical() == properties,
        "{what}: other properties"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_up_to_20000_deep_do_not_overflow_any_stack() {
    let mut messages = Vec::new();
    for levels in [9, 1_000, 5_000, 20_000] {
        let what = format!("arrays nested {levels} deep");
        messages.push((what, with_headers(nested_arrays(levels)), Reason::Hostile));
    }
    // A frame has no room for more levels of tables.
    for levels in [9, 18_000] {
        let what = format!("tables nested {levels} deep");
        messages.push((what, with_headers(nested_tables(levels)), Reason::Hostile));
    }
    endures(on_rabbitmq("nested").await, messages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_8_deep_64_of_them_and_32_kib_are_handled() {
    let scene = on_rabbitmq("edges").await;
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    let many: Vec<u8> = (0..64)
        .flat_map(|n| text_entry(&format!("h{n}"), b"v"))
        .collect();
    let heavy: Vec<u8> = (0..31)
        .flat_map(|n| text_entry(&format!("h{n:02}"), &[b'v'; 1000]))
        .collect();
    for table in [nested_arrays(8), nested_tables(8), many, heavy] {
        let message = RawMessage {
            body: b"{\"number\":77}".to_vec(),
            ..with_headers(table)
        };
        raw.publish(scene.queue.name(), &message).unwrap();
    }
    until("all are handled", Duration::from_secs(20), async || {
        (scene.done_count(77) == 4).then_some(())
    })
    .await;
    assert_eq!(scene.client.stats(&scene.queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_and_too_large_headers_are_set_aside_as_hostile_on_rabbitmq() {
    let many: Vec<u8> = (0..65)
        .flat_map(|n| text_entry(&format!("h{n}"), b"v"))
        .collect();
    let thousands: Vec<u8> = (0..10_000)
        .flat_map(|n| text_entry(&format!("{n:04}"), b""))
        .collect();
    let heavy: Vec<u8> = (0..33)
        .flat_map(|n| text_entry(&format!("h{n:02}"), &[b'v'; 1024]))
        .collect();
    let messages = [
        ("65 headers", many),
        ("10,000 headers", thousands),
        ("33 KiB of headers", heavy),
        ("a value of 130 KB", text_entry("h", &[b'v'; 130_000])),
        ("a name of 129 bytes", text_entry(&"n".repeat(129), b"v")),
        ("a name of 255 bytes", text_entry(&"n".repeat(255), b"v")),
        ("an empty name", text_entry("", b"v")),
        (
            "a name twice",
            [text_entry("twice", b"1"), text_entry("twice", b"2")].concat(),
        ),
        ("a name with a newline", text_entry("a\nb", b"v")),
    ];
    let messages =
        messages.map(|(what, table)| (what.to_owned(), with_headers(table), Reason::Hostile));
    endures(on_rabbitmq("headers").await, messages.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_with_control_characters_or_too_long_are_hostile_on_rabbitmq() {
    let mut messages = Vec::new();
    for (property, name) in [
        (MessageId, "id"),
        (Type, "type"),
        (CorrelationId, "correlation id"),
        (ContentType, "content type"),
    ] {
        for (how, octets) in [
            ("a newline", &b"a\nINFO forged: line"[..]),
            ("an escape sequence", b"a\x1b[31mred"),
            ("a NUL", b"a\0b"),
            ("255 bytes", &[b'x'; 255]),
            ("129 bytes", &[b'x'; 129]),
        ] {
            let mut message = job();
            message.properties = message.properties.with(property, octets);
            messages.push((format!("{name}: {how}"), message, Reason::Hostile));
        }
    }
    let scene = endures(on_rabbitmq("names").await, messages).await;
    nothing_is_forged(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_and_names_that_are_no_utf_8_are_hostile_and_end_no_connection() {
    let mut messages = vec![(
        "a header name".to_owned(),
        with_headers(entry(b"\xff\xfe", b'S', &long(b"v"))),
        Reason::Hostile,
    )];
    // AppId and ReplyTo too: what nobody looks at still must not end the connection.
    for property in [MessageId, Type, CorrelationId, ContentType, AppId, ReplyTo] {
        let mut message = job();
        message.properties = message.properties.with(property, b"\xff\xfe\x80");
        messages.push((format!("{property:?}"), message, Reason::Hostile));
    }
    endures(on_rabbitmq("bytes").await, messages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_can_still_be_discarded() {
    let mut scene = on_rabbitmq("discard").await;
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    for message in [
        with_headers(nested_arrays(1_000)),
        with_headers(entry(b"\xff", b'S', &long(b"v"))),
    ] {
        raw.publish(scene.queue.name(), &message).unwrap();
        let letter = scene.sets_aside(1).await.remove(0);
        let letters = scene.client.dead_letters(&scene.queue);
        let discarded = letters.discard(&letter.id).await;
        discarded.unwrap_or_else(|error| panic!("{}: {error}", letter.detail));
        assert!(letters.peek().await.unwrap().is_none());
    }
}

fn nothing_is_forged(scene: &Scene) {
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

#[tokio::test(flavor = "multi_thread")]
async fn direction_overrides_in_names_never_reach_a_log() {
    let mut scene = on_rabbitmq("bidi").await;
    let mut raw = RawAmqp::connect(&scene.url).unwrap();
    let mut message = with_body("{");
    let name = "a\u{202e}\u{2066}txt.exe";
    message.properties = message
        .properties
        .with(MessageId, name)
        .with(CorrelationId, name);
    message.properties = message
        .properties
        .with(Headers, text_entry("traceparent", name.as_bytes()));
    raw.publish(scene.queue.name(), &message).unwrap();
    let letter = scene.sets_aside(1).await.remove(0);
    assert!(!letter.detail.contains('\u{202e}'), "{letter:?}");
    message.properties = message.properties.with(Type, name);
    raw.publish(scene.queue.name(), &message).unwrap();
    let letter = scene.sets_aside(2).await.remove(1);
    assert!(!letter.detail.contains('\u{202e}'), "{letter:?}");
    nothing_is_forged(&scene);

    let mut scene = on_redis("bidi").await;
    let add = |kind: &str| {
        json!([
            "XADD",
            key(&scene.queue, "stream"),
            "*",
            "type",
            kind,
            "id",
            name,
            "body",
            "{",
            "h.traceparent",
            name
        ])
    };
    plain::redis(&scene.url, &[add("job"), add(name)]).await;
    for letter in scene.sets_aside(2).await {
        assert!(!letter.detail.contains('\u{202e}'), "{letter:?}");
    }
    nothing_is_forged(&scene);
}

/// Valid JSON of exactly so many bytes.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = b"{\"number\":1000000}".to_vec();
    body.resize(bytes, b' ');
    body
}

const MIB: usize = 1024 * 1024;

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

fn key(queue: &Queue, what: &str) -> String {
    format!("ls:{{{}}}:{what}", queue.name())
}

/// As [`endures`], with the fields of stream entries.
async fn endures_entries(mut scene: Scene, entries: Vec<(&str, Value, Reason)>) -> Scene {
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

#[tokio::test(flavor = "multi_thread")]
async fn hostile_fields_are_set_aside_on_redis() {
    let headers = |count: usize, prefix: &str, bytes: usize| -> Value {
        let pairs =
            (0..count).flat_map(|n| [json!(format!("{prefix}{n:05}")), json!("v".repeat(bytes))]);
        let own = ["type", "job", "body", "{\"number\":1000000}"].map(Value::from);
        own.into_iter().chain(pairs).collect()
    };
    let with = |fields: Value| -> Value {
        let own = json!(["type", "job", "body", "{\"number\":1000000}"]);
        [
            own.as_array().unwrap().clone(),
            fields.as_array().unwrap().clone(),
        ]
        .concat()
        .into()
    };
    let mut entries = vec![
        ("65 headers", headers(65, "h.", 1), Reason::Hostile),
        (
            "33 KiB of headers",
            headers(33, "h.", 1024),
            Reason::Hostile,
        ),
        ("65 unknown fields", headers(65, "u", 1), Reason::Hostile),
        ("5,000 fields", headers(5_000, "h.", 1), Reason::Hostile),
        (
            "5,000 unknown fields",
            headers(5_000, "u", 10),
            Reason::Hostile,
        ),
        (
            "a header of 130 KB",
            with(json!(["h.a", "v".repeat(130_000)])),
            Reason::Hostile,
        ),
        (
            "a header name of 129 bytes",
            with(json!([format!("h.{}", "n".repeat(129)), "v"])),
            Reason::Hostile,
        ),
        (
            "a header without a name",
            with(json!(["h.", "v"])),
            Reason::Hostile,
        ),
        (
            "a header name that is no UTF-8",
            with(json!([plain::bytes(b"h.\xff\xfe"), "v"])),
            Reason::Hostile,
        ),
        (
            "a header name with a newline",
            with(json!(["h.a\nb", "v"])),
            Reason::Hostile,
        ),
        (
            "a type twice",
            with(json!(["type", "job"])),
            Reason::Hostile,
        ),
        (
            "a body twice",
            with(json!(["body", "{\"number\":1}"])),
            Reason::Hostile,
        ),
        ("no body", json!(["type", "job"]), Reason::Hostile),
        ("nothing known", json!(["", ""]), Reason::Hostile),
        (
            "the fields of a dead letter",
            json!([
                "dead.reason",
                "forged",
                "dead.detail",
                "",
                "dead.attempts",
                "9",
                "dead.queue",
                "x",
                "dead.at",
                "1"
            ]),
            Reason::Hostile,
        ),
    ];
    let hostile = [
        ("a newline", "a\nINFO forged: line".into()),
        ("an escape sequence", b"a\x1b[31mred".to_vec()),
        ("a NUL", b"a\0b".to_vec()),
        ("255 bytes", vec![b'x'; 255]),
        ("129 bytes", vec![b'x'; 129]),
        ("no UTF-8", b"\xff\xfe\x80".to_vec()),
    ];
    let names: Vec<(String, Value)> = ["id", "key", "correlation_id", "content_type", "priority"]
        .into_iter()
        .flat_map(|field| hostile.iter().map(move |(how, bytes)| (field, how, bytes)))
        .map(|(field, how, bytes)| {
            (
                format!("{field}: {how}"),
                with(json!([field, plain::bytes(bytes)])),
            )
        })
        .chain(hostile.iter().map(|(how, bytes)| {
            (
                format!("type: {how}"),
                json!(["type", plain::bytes(bytes), "body", "{\"number\":1}"]),
            )
        }))
        .collect();
    entries.extend(
        names
            .iter()
            .map(|(what, fields)| (&**what, fields.clone(), Reason::Hostile)),
    );
    let scene = endures_entries(on_redis("fields").await, entries).await;
    nothing_is_forged(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_looks_like_a_packed_dead_letter_comes_back_as_it_was_added() {
    let packed = plain::bytes(&[0, 0, 0, 1, b'a', 0, 0, 0, 1, b'b']);
    let fields = json!(["dead.packed", packed]);
    let entries = vec![("a packed dead letter", fields, Reason::Hostile)];
    endures_entries(on_redis("packed").await, entries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_nothing_but_an_attempt_can_be_sent_back_or_says_that_it_cannot() {
    let mut scene = on_redis("attempt").await;
    let add = json!(["XADD", key(&scene.queue, "stream"), "*", "attempt", "3"]);
    plain::redis(&scene.url, &[add]).await;
    let letter = scene.sets_aside(1).await.remove(0);
    assert_eq!(letter.reason, Reason::Hostile);
    scene.stop().await;
    let letters = scene.client.dead_letters(&scene.queue);
    let back = letters.redrive(&letter.id).await;
    assert_eq!(back.is_ok(), letter.redrivable, "{back:?}");
    if let Err(error) = back {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        letters.discard(&letter.id).await.unwrap();
    }
    assert!(letters.peek().await.unwrap().is_none());
}

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

async fn long_error_text(client: &Client) {
    let queue = Queue::new(&unique("error"));
    let witness = Witness::default();
    let worker = witness
        .worker(client, &queue, |job, _| match job.number {
            0 => Err(HandlerError::permanent("é\u{1b}\n".repeat(MIB / 4))),
            1 => panic!("{}", "ü".repeat(MIB)),
            _ => Ok(()),
        })
        .await
        .unwrap();
    longshore_tests::job::publish_jobs(client, &queue, 3)
        .await
        .unwrap();
    let letter = until("the first is dead", Duration::from_secs(20), async || {
        client.dead_letters(&queue).peek().await.unwrap()
    })
    .await;
    assert_eq!(letter.reason, Reason::Permanent);
    assert!(
        (3_000..=4_096).contains(&letter.detail.len()),
        "{}",
        letter.detail.len()
    );
    assert!(!letter.detail.chars().any(char::is_control));
    let letters = dead(client, &queue, 2).await;
    assert_eq!(letters[1].reason, Reason::Exhausted, "the panic");
    assert!(
        (3_000..=4_096).contains(&letters[1].detail.len()),
        "{}",
        letters[1].detail.len()
    );
    assert!(
        witness.seen().iter().any(|sight| sight.number == 2),
        "the neighbour"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_of_1_mib_is_cut_and_its_dead_letter_arrives_on_rabbitmq() {
    long_error_text(
        &longshore::connect(&brokers::amqp_url().unwrap())
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_of_1_mib_is_cut_and_its_dead_letter_arrives_on_redis() {
    long_error_text(
        &longshore::connect(&brokers::redis_url().unwrap())
            .await
            .unwrap(),
    )
    .await;
}

/// 20,000 undecodable messages among 2,000 good ones.
async fn poison_flood(mut scene: Scene) {
    const ROUNDS: u64 = 20;
    let before = scene.peak_kib();
    for _ in 0..ROUNDS {
        let bad = (0..1_000).map(|_| Draft::raw("job", "application/json", "{\"number\":"));
        for answer in scene.client.publish_all(&scene.queue, bad).await {
            answer.unwrap();
        }
        scene.send(100).await;
    }
    scene.done(scene.sent()).await;
    let stats = until(
        "all of the bad are dead",
        Duration::from_secs(120),
        async || {
            let stats = scene.client.stats(&scene.queue).await.ok()?;
            (stats.ready == 0 && stats.dead >= ROUNDS * 1_000).then_some(stats)
        },
    )
    .await;
    assert_eq!(stats.dead, ROUNDS * 1_000, "{stats:?}");
    let page = scene
        .client
        .dead_letters(&scene.queue)
        .list(None, 100)
        .await
        .unwrap();
    assert!(
        page.len() == 100
            && page
                .iter()
                .all(|letter| letter.reason == Reason::Undecodable)
    );
    scene.works().await;
    let warnings = scene
        .logged()
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .count();
    let grown = scene.peak_kib() - before;
    println!("{warnings} warnings, {grown} KiB more");
    assert!(warnings < 500, "{warnings} lines at WARN and above");
    assert!(grown < 64 * 1024, "the service grew by {grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_20000_undecodable_messages_holds_up_no_good_one_on_rabbitmq() {
    poison_flood(on_rabbitmq("flood").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_20000_undecodable_messages_holds_up_no_good_one_on_redis() {
    poison_flood(on_redis("flood").await).await;
}
