//! Plain clients publish copies into a queue with a dedup window.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{Client, Connect, Context, HandlerError, Queue, Reply, Router, Worker};
use longshore_testing::brokers;
use longshore_tests::{
    plain, unique,
    waiting::until,
    witness::{Witness, dead},
};
use serde_json::{Value, json};

use crate::{
    requests::{GetQuote, Quote},
    stream_key,
};

/// Id and key of each copy, and how often its job may be done.
const COPIES: [(&str, Option<&str>); 9] = [
    ("a", None),
    ("a", None),
    ("b", None),
    ("a", Some("k")),
    ("a", Some("k")),
    ("a", Some("l")),
    ("", None),
    ("", None),
    ("b", None),
];

/// By id and key, after the copies have come twice.
const DONE: [(&str, &str, usize); 5] = [
    ("a", "", 1),
    ("a", "k", 1),
    ("a", "l", 1),
    ("b", "", 1),
    // Nothing tells copies without an id from different messages.
    ("none", "", 4),
];

async fn with_window(connect: Connect) -> (Client, Queue) {
    let client = connect.open().await.unwrap();
    let queue = Queue::new(&unique("window")).dedup_window(Duration::from_secs(60));
    client.declare(&queue).await.unwrap();
    (client, queue)
}

/// Two workers handle the copies, each failing once at first; later copies find them done.
async fn are_done_once(clients: [Client; 2], queue: &Queue, publish: impl AsyncFn()) {
    let witness = Witness::default();
    let fails_once = |_: &_, cx: &Context| match cx.attempt() {
        1 => Err(HandlerError::from("not yet")),
        _ => Ok(()),
    };
    let mut workers = Vec::new();
    for client in &clients {
        workers.push(witness.worker(client, queue, fails_once).await.unwrap());
    }
    for round in 1..=2 {
        publish().await;
        until("all are settled", Duration::from_secs(30), async || {
            let stats = clients[0].stats(queue).await.unwrap();
            let unsettled = stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0);
            let done = witness
                .seen()
                .iter()
                .filter(|sight| sight.attempt == 2)
                .count();
            (stats.ready + unsettled == 0 && done >= 4 + 2 * round).then_some(())
        })
        .await;
    }
    for worker in workers {
        worker.stop().await;
    }
    let mut done = BTreeMap::new();
    for sight in witness.seen().iter().filter(|sight| sight.attempt == 2) {
        let envelope = &sight.envelope;
        let id = match &*envelope.id {
            "a" | "b" => envelope.id.to_string(),
            _ => "none".to_owned(),
        };
        let key = envelope.key.as_deref().unwrap_or_default().to_owned();
        *done.entry((id, key)).or_default() += 1;
    }
    let expected = DONE.map(|(id, key, times)| ((id.to_owned(), key.to_owned()), times));
    assert_eq!(done, BTreeMap::from(expected));
    assert_eq!(clients[0].stats(queue).await.unwrap().dead, 0);
}

fn messages(queue: &Queue) -> Vec<Value> {
    let message = |(id, key): &(&str, Option<&str>)| {
        let mut properties = json!({"type": "job"});
        if !id.is_empty() {
            properties["message_id"] = (*id).into();
        }
        if let Some(key) = key {
            properties["headers"] = json!({"longshore-key": key});
        }
        json!({"to": queue.name(), "body": "{\"number\":1}", "properties": properties})
    };
    COPIES.iter().map(message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_pika_publishes_are_done_once_for_each_id() {
    let url = brokers::amqp_url().unwrap();
    let store = brokers::redis_url().unwrap();
    let connect = || Connect::new(&url).store(&store);
    let (client, queue) = with_window(connect()).await;
    let other = connect().open().await.unwrap();
    let publish = async || {
        plain::amqp(&url, &messages(&queue)).await;
    };
    are_done_once([client, other], &queue, publish).await;
}

fn entries(queue: &Queue) -> Vec<Value> {
    let stream = stream_key(queue);
    let entry = |(id, key): &(&str, Option<&str>)| {
        let mut fields = vec![("type", "job"), ("body", "{\"number\":1}")];
        if !id.is_empty() {
            fields.push(("id", id));
        }
        fields.extend(key.map(|key| ("key", key)));
        plain::add(&stream, &fields)
    };
    COPIES.iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_redis_py_adds_are_done_once_for_each_id() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_window(Connect::new(&url)).await;
    let other = longshore::connect(&url).await.unwrap();
    let publish = async || {
        plain::redis(&url, &entries(&queue)).await;
    };
    are_done_once([client, other], &queue, publish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_redis_py_is_no_more_done_than_one_that_longshore_published() {
    let url = brokers::redis_url().unwrap();
    let (client, queue) = with_window(Connect::new(&url)).await;
    let job = longshore_tests::job::Job { number: 1 };
    client.publish(&queue, &job).id("a").await.unwrap();
    let fields = [("type", "job"), ("body", "{\"number\":1}"), ("id", "a")];
    plain::redis(&url, &[plain::add(&stream_key(&queue), &fields)]).await;
    let witness = Witness::default();
    let worker = witness
        .worker(&client, &queue, |_, _| Ok(()))
        .await
        .unwrap();
    until("both are settled", Duration::from_secs(30), async || {
        let stats = client.stats(&queue).await.unwrap();
        let unsettled = stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0);
        (stats.ready + unsettled == 0).then_some(())
    })
    .await;
    assert_eq!(witness.seen().len(), 1);
    worker.stop().await;
    // An operator's redrive is outside the window.
    let never = |_: &_, _: &_| Err(HandlerError::permanent("never"));
    let fields = [("type", "job"), ("body", "{\"number\":2}"), ("id", "b")];
    plain::redis(&url, &[plain::add(&stream_key(&queue), &fields)]).await;
    let worker = witness.worker(&client, &queue, never).await.unwrap();
    let letter = dead(&client, &queue, 1).await.remove(0);
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
    assert_eq!(witness.starts(3).await[2].number, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_redis_py_repeats_is_answered_again_and_handled_once() {
    let url = brokers::redis_url().unwrap();
    for sessions in [false, true] {
        let client = longshore::connect(&url).await.unwrap();
        let mut queue = Queue::new(&unique("again")).dedup_window(Duration::from_secs(60));
        if sessions {
            queue = queue.sessions(4);
        }
        let handled = Arc::new(AtomicUsize::new(0));
        let router = Router::new().handle_fn(move |_: GetQuote, _: Context| {
            let price = handled.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok::<_, HandlerError>(Reply(Quote { price })) }
        });
        let worker = Worker::new(&client, &queue, router).start().await.unwrap();
        let inbox = format!("ls:reply:{}", unique("again"));
        let asked = [
            ("type", "quote.get"),
            ("body", "{\"symbol\":\"gold\"}"),
            ("id", "a"),
            ("key", "k"),
            ("correlation_id", "c"),
            ("reply_to", &inbox),
        ];
        let ask = plain::add(&stream_key(&queue), &asked);
        let make = json!(["XADD", inbox, "MAXLEN", "0", "*", "made", "1"]);
        plain::redis(&url, &[make, ask.clone(), ask]).await;
        let replies = until("two replies", Duration::from_secs(20), async || {
            let replies = plain::stream(&url, &inbox).await;
            (replies.len() == 2).then_some(replies)
        })
        .await;
        worker.stop().await;
        for reply in replies.iter().map(plain::fields) {
            assert_eq!(
                (&*reply["body"], &*reply["correlation_id"]),
                ("{\"price\":1}", "c")
            );
        }
    }
}
