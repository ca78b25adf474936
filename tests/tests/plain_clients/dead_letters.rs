//! What a plain client sent is whole in the dead letters, and comes back as it was.

use std::time::{Duration, SystemTime};

use longshore::{Client, DeadLetter, HandlerError, Queue, Reason};
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
    witness::{Witness, dead, only_dead},
};
use serde_json::{Value, json};

use crate::{
    dead_key, everything, fails_twice, fine, is_about, millis, rabbitmq, redis, stream_key,
};

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
        first_published.properties.redriven()
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
    assert_eq!(back.properties, Properties::default().redriven());
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
    assert_eq!(back[0][1], plain::redriven(&fields));
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
        (back.properties.canonical(), &*back.body),
        (expected.redriven(), &b"{\"number\":7}"[..])
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
