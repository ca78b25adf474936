//! Fields of stream entries that break a limit, or a reader.

use longshore::{ErrorKind, Reason};
use longshore_tests::plain;
use serde_json::{Value, json};

use crate::{endures_entries, key, nothing_is_forged, on_redis};

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
