//! Forged marks of ids, redrives and replies.

use std::{collections::BTreeMap, time::Duration};

use longshore::{Client, Connect, Draft, Message, Queue, Reason, Request};
use longshore_testing::brokers;
use longshore_tests::{
    job::Job,
    plain,
    raw_amqp::{
        Properties,
        Property::{CorrelationId, Headers, MessageId, Type},
        RawAmqp, RawMessage, entry, long, nested_arrays, text_entry,
    },
    unique,
    waiting::until,
    witness::{Witness, dead},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::key;

const GOOD: u64 = 50;

async fn with_window(connect: Connect) -> (Client, Queue) {
    let client = connect.open().await.unwrap();
    let queue = Queue::new(&unique("marks")).dedup_window(Duration::from_secs(60));
    client.declare(&queue).await.unwrap();
    (client, queue)
}

/// Good jobs, each twice with one id, among what is forged. Answers how often each id was handled.
async fn handled(client: &Client, queue: &Queue) -> BTreeMap<String, usize> {
    let witness = Witness::default();
    let worker = witness.worker(client, queue, |_, _| Ok(())).await.unwrap();
    for _ in 0..2 {
        let good = (0..GOOD).map(|number| Draft::new(&Job { number }).id(format!("good-{number}")));
        for answer in client.publish_all(queue, good).await {
            answer.unwrap();
        }
    }
    until("all are settled", Duration::from_secs(60), async || {
        let stats = client.stats(queue).await.ok()?;
        let left = stats.ready + stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0);
        let seen = witness.seen();
        let good = seen
            .iter()
            .filter(|sight| sight.envelope.id.starts_with("good-"));
        (left == 0 && good.count() as u64 >= GOOD).then_some(())
    })
    .await;
    worker.stop().await;
    let mut handled = BTreeMap::new();
    for sight in witness.seen() {
        let reserved = |name: &str| name.starts_with("longshore-");
        let shown = sight
            .envelope
            .headers
            .iter()
            .find(|(name, _)| reserved(name));
        assert!(shown.is_none(), "a handler is shown {shown:?}");
        *handled.entry(sight.envelope.id.to_string()).or_default() += 1;
    }
    for number in 0..GOOD {
        assert_eq!(handled.remove(&format!("good-{number}")), Some(1));
    }
    handled
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_marks_on_rabbitmq_hold_up_no_id_but_their_own() {
    let url = brokers::amqp_url().unwrap();
    let store = brokers::redis_url().unwrap();
    let (client, queue) = with_window(Connect::new(&url).store(store)).await;
    let mut raw = RawAmqp::connect(&url).unwrap();
    let mut publish = |id: &str, table: Vec<u8>| {
        let properties = Properties::default().with(Type, "job").with(MessageId, id);
        let message = RawMessage {
            properties: properties.with(Headers, table),
            body: b"{\"number\":1000}".to_vec(),
        };
        raw.publish(queue.name(), &message).unwrap();
    };
    let redriven = b"longshore-redriven";
    for (id, mark) in [
        ("text", text_entry("longshore-redriven", b"true")),
        ("number", entry(redriven, b'l', &1_i64.to_be_bytes())),
        ("false", entry(redriven, b't', &[0])),
        ("nothing", entry(redriven, b'V', b"")),
        (
            "table",
            entry(redriven, b'F', &long(&text_entry("a", b"b"))),
        ),
        ("reply", text_entry("longshore-reply", b"last")),
        (
            "reply number",
            entry(b"longshore-reply-number", b'l', &i64::MAX.to_be_bytes()),
        ),
        ("original", text_entry("longshore-original", b"message-id")),
        ("dedup", text_entry("dedup", b"0123456789abcdef")),
    ] {
        publish(id, mark.clone());
        publish(id, mark);
    }
    // Who says so itself is outside the window; that is no more than another id would do.
    let nameless = entry(b"message-id", b'V', b"");
    for (id, mark) in [
        ("redriven", entry(redriven, b't', &[1])),
        (
            "nameless",
            entry(b"longshore-original", b'F', &long(&nameless)),
        ),
    ] {
        publish(id, mark.clone());
        publish(id, mark);
    }
    let mut handled = handled(&client, &queue).await;
    for id in ["redriven", "nameless"] {
        assert_eq!(handled.remove(id), Some(2), "{id}");
    }
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
    assert_eq!(handled.len(), 9);
    assert!(handled.values().all(|times| *times == 1), "{handled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_marks_on_redis_hold_up_no_id_but_their_own() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_window(Connect::new(&url)).await;
    let stream = key(&queue, "stream");
    let add = |id: &str, more: &[(&str, &str)]| {
        let own = [("type", "job"), ("body", "{\"number\":1000}"), ("id", id)];
        plain::add(&stream, &[&own[..], more].concat())
    };
    let forged: [(&str, &[(&str, &str)]); 10] = [
        (
            "reply",
            &[("reply", "last"), ("reply_number", "18446744073709551616")],
        ),
        ("fault", &[("reply", "fault"), ("reply_number", "-1")]),
        ("no hold", &[("dedup", "")]),
        ("a long hold", &[("dedup", &"f".repeat(1000))]),
        ("a hold", &[("dedup", "0123456789abcdef")]),
        (
            "two holds",
            &[("dedup", "0123456789abcdef"), ("dedup", "0")],
        ),
        ("redriven", &[("redriven", "yes")]),
        (
            "reserved",
            &[("h.longshore-redriven", "1"), ("h.longshore-reply", "last")],
        ),
        ("not redriven", &[("redriven", "0")]),
        (
            "redriven twice",
            &[("redriven", "1"), ("redriven", "1"), ("dedup", "x")],
        ),
    ];
    let adds: Vec<Value> = forged
        .iter()
        .flat_map(|(id, more)| [add(id, more), add(id, more)])
        .collect();
    // Keys of marks that are no marks.
    let mark = |id: &str| key(&queue, &format!("dedup:{id}"));
    let poison = [
        json!(["RPUSH", mark("list"), "x"]),
        json!(["SET", mark("text"), "?"]),
        json!(["SET", mark("forever"), "r1:somebody"]),
        json!(["SET", mark("waits"), "w99999999999999999999", "PX", 3000]),
        json!(["SET", mark("done"), "d:\u{fffd}garbage"]),
        json!(["SET", mark("empty"), ""]),
    ];
    let ids = ["list", "text", "forever", "waits", "done", "empty"];
    let poisoned = ids.iter().map(|id| add(id, &[]));
    plain::redis(&url, &[&poison[..], &adds].concat()).await;
    plain::redis(&url, &poisoned.collect::<Vec<_>>()).await;
    let mut handled = handled(&client, &queue).await;
    for id in ["list", "text", "forever", "waits", "empty"] {
        assert_eq!(handled.remove(id), Some(1), "{id}");
    }
    assert_eq!(handled.remove("done"), None);
    for (id, _) in forged {
        // Who says so itself is outside the window; that is no more than another id would do.
        let (least, most) = match id {
            "reply" | "fault" | "redriven" | "not redriven" | "reserved" => (1, 1),
            "two holds" | "redriven twice" => (0, 0),
            _ => (1, 2),
        };
        let times = handled.remove(id).unwrap_or_default();
        assert!((least..=most).contains(&times), "{id}: {times:?}");
    }
    assert!(handled.is_empty(), "{handled:?}");
    // A field that is there twice is hostile.
    let letters = dead(&client, &queue, 4).await;
    assert!(
        letters.len() == 4
            && letters
                .iter()
                .all(|letter| letter.reason == Reason::Hostile)
    );
}

#[derive(Serialize, Deserialize)]
struct GetQuote;

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

impl Request for GetQuote {
    type Reply = u64;
}

/// Whoever learns of a reply address can write there, but not in the place of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_a_reply_address_on_rabbitmq_keeps_no_answer_from_its_asker() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let queue = Queue::new(&unique("quotes"));
    client.declare(&queue).await.unwrap();
    let asker = {
        let (client, queue) = (client.clone(), queue.clone());
        let wait = Duration::from_secs(30);
        tokio::spawn(async move { client.request(&queue, &GetQuote).timeout(wait).await })
    };
    let taken = until(
        "the request is there",
        Duration::from_secs(10),
        async || {
            let taken = plain::amqp(&url, &[json!({"from": queue.name(), "take": true})])
                .await
                .remove(0);
            (!taken.is_null()).then_some(taken)
        },
    )
    .await;
    let told = |name: &str| taken["properties"][name].as_str().unwrap().to_owned();
    let (to, id) = (told("reply_to"), told("correlation_id"));
    let mut raw = RawAmqp::connect(&url).unwrap();
    let reply = |id: &str, table: Vec<u8>, body: &[u8]| RawMessage {
        properties: Properties::default()
            .with(CorrelationId, id)
            .with(Headers, table),
        body: body.to_vec(),
    };
    for n in 0..5_000 {
        raw.publish(&to, &reply(&format!("guess-{n}"), Vec::new(), b"1"))
            .unwrap();
    }
    for forged in [
        RawMessage::default(),
        reply(&id, nested_arrays(20_000), b"2"),
        reply(&id, entry(b"\xff", b'S', &long(b"v")), b"3"),
        reply(&"x".repeat(255), Vec::new(), b"4"),
        // A part that nobody asked for, and one that says it is no number.
        reply(&id, text_entry("longshore-reply", b"part"), b"5"),
    ] {
        raw.publish(&to, &forged).unwrap();
    }
    raw.publish(
        &to,
        &reply(&id, text_entry("longshore-reply-number", b"many"), b"42"),
    )
    .unwrap();
    assert_eq!(asker.await.unwrap().unwrap(), 42);
    // The inbox is none the worse for it.
    assert!(
        client
            .request(&queue, &GetQuote)
            .timeout(Duration::from_millis(200))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_a_reply_address_on_redis_keeps_no_answer_from_its_asker() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let queue = Queue::new(&unique("quotes"));
    client.declare(&queue).await.unwrap();
    let asker = {
        let (client, queue) = (client.clone(), queue.clone());
        let wait = Duration::from_secs(30);
        tokio::spawn(async move { client.request(&queue, &GetQuote).timeout(wait).await })
    };
    let request = until(
        "the request is there",
        Duration::from_secs(10),
        async || {
            let entries = plain::stream(&url, &key(&queue, "stream")).await;
            entries.first().map(plain::fields)
        },
    )
    .await;
    let (to, id) = (&request["reply_to"], &request["correlation_id"]);
    let mut adds: Vec<Value> = (0..5_000)
        .map(|n| {
            plain::add(
                to,
                &[("correlation_id", &format!("guess-{n}")), ("body", "1")],
            )
        })
        .collect();
    adds.extend([
        plain::add(to, &[("", "")]),
        plain::add(to, &[("correlation_id", id)]),
        plain::add(
            to,
            &[("correlation_id", id), ("body", "2"), ("h.a\nb", "v")],
        ),
        plain::add(to, &[("correlation_id", id), ("body", "3"), ("body", "4")]),
        plain::add(
            to,
            &[("correlation_id", id), ("body", "5"), ("reply", "part")],
        ),
        plain::add(
            to,
            &[
                ("correlation_id", id),
                ("body", "42"),
                ("reply_number", "many"),
            ],
        ),
    ]);
    plain::redis(&url, &adds).await;
    assert_eq!(asker.await.unwrap().unwrap(), 42);
    assert!(
        client
            .request(&queue, &GetQuote)
            .timeout(Duration::from_millis(200))
            .await
            .is_err()
    );
}
