//! Headers and properties that break a limit, or a reader.

use std::time::Duration;

use longshore::Reason;
use longshore_tests::{
    plain,
    raw_amqp::{
        Property::{AppId, ContentType, CorrelationId, Headers, MessageId, ReplyTo, Type},
        RawAmqp, RawMessage, entry, long, nested_arrays, nested_tables, text_entry,
    },
    waiting::until,
};
use serde_json::json;

use crate::{endures, job, key, nothing_is_forged, on_rabbitmq, on_redis, with_body, with_headers};

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
