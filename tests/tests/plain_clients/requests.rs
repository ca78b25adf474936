//! Plain clients ask, a service of ours answers: where they wait for it, and nowhere else.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use longshore::{
    Backoff, Client, Connect, Context, HandlerError, Message, Queue, Reason, Reply, Request,
    Router, Worker, WorkerHandle,
};
use longshore_testing::brokers;
use longshore_tests::{plain, unique, waiting::until, witness::only_dead};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{is_about, rabbitmq, redis, stream_key, with_queue};

#[derive(Serialize, Deserialize)]
pub(crate) struct GetQuote {
    pub(crate) symbol: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quote {
    pub(crate) price: usize,
}

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

impl Request for GetQuote {
    type Reply = Quote;
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NotListed {
    pub(crate) symbol: String,
}

impl Message for NotListed {
    const TYPE: &'static str = "not.listed";
}

const BACKOFF: Duration = Duration::from_millis(50);

/// Answers with the length of the symbol, or with a fault, or breaks.
async fn desk(client: &Client, queue: &Queue) -> WorkerHandle {
    let router = Router::new().handle_fn(|asked: GetQuote, _: Context| async move {
        match &*asked.symbol {
            "" => Err(HandlerError::fault(&NotListed {
                symbol: asked.symbol,
            })),
            "broken" => Err(HandlerError::permanent("what only the operator sees")),
            symbol => Ok(Reply(Quote {
                price: symbol.len(),
            })),
        }
    });
    let worker = Worker::new(client, queue, router);
    let worker = worker.backoff(Backoff::new(BACKOFF, BACKOFF));
    worker.start().await.unwrap()
}

fn question(symbol: &str, properties: Value) -> Value {
    let mut properties = properties;
    properties["type"] = "quote.get".into();
    json!({"body": json!({"symbol": symbol}).to_string(), "properties": properties})
}

/// Asks with pika, and answers the replies by their correlation id.
async fn ask(
    url: &str,
    queue: &Queue,
    inbox: &str,
    questions: &[Value],
) -> BTreeMap<String, Value> {
    let ask = json!({"ask": queue.name(), "inbox": inbox, "messages": questions, "replies": questions.len()});
    let replies = plain::amqp(url, &[ask]).await.remove(0);
    let replies = replies.as_array().unwrap().clone();
    assert_eq!(replies.len(), questions.len(), "{replies:?}");
    let named = replies.into_iter().map(|reply| {
        let id = reply["properties"]["correlation_id"].as_str();
        (id.unwrap_or_default().to_owned(), reply)
    });
    named.collect()
}

async fn pika_is_answered(url: &str, client: &Client, queue: &Queue, inbox: &str) {
    let worker = desk(client, queue).await;
    let questions = [
        question(
            "gold",
            json!({"correlation_id": "c-1", "message_id": "m-1"}),
        ),
        question("silver", json!({"message_id": "m-2"})),
        question("", json!({"correlation_id": "c-3"})),
        question("broken", json!({"correlation_id": "c-4"})),
    ];
    let mut replies = ask(url, queue, inbox, &questions).await;
    worker.stop().await;
    for (id, price) in [("c-1", 4), ("m-2", 6)] {
        let reply = replies.remove(id).unwrap();
        let properties = &reply["properties"];
        let sent = properties["headers"]["longshore-sent-at"].as_u64().unwrap();
        assert!(is_about(sent, SystemTime::now()));
        let number = &properties["headers"]["longshore-reply-number"];
        assert!(number.is_u64(), "{number}");
        let expected = json!({
            "content_type": "application/json",
            "correlation_id": id,
            "delivery_mode": 2,
            "message_id": properties["message_id"],
            "timestamp": sent / 1000,
            "type": "quote.get.reply",
            "headers": {
                "longshore-reply": "last",
                "longshore-reply-number": number,
                "longshore-sent-at": sent,
            },
        });
        let expected = json!({"properties": expected, "body": format!("{{\"price\":{price}}}")});
        assert_eq!(reply, expected);
    }
    for (id, fault) in [
        (
            "c-3",
            json!({"reason": "fault", "detail": "", "type": "not.listed", "body": {"symbol": ""}}),
        ),
        (
            "c-4",
            json!({"reason": "permanent", "detail": "the request became a dead letter"}),
        ),
    ] {
        let reply = replies.remove(id).unwrap();
        let properties = &reply["properties"];
        assert_eq!(properties["headers"]["longshore-reply"], "fault", "{id}");
        assert_eq!(properties["content_type"], "application/json", "{id}");
        let body: Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
        assert_eq!(body, fault);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_asks_and_is_answered_at_its_direct_reply_address() {
    let (url, client, queue) = rabbitmq("direct").await;
    pika_is_answered(&url, &client, &queue, "amq.rabbitmq.reply-to").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_asks_and_is_answered_in_a_queue_of_its_own_that_the_broker_named() {
    let (url, client, queue) = rabbitmq("own").await;
    pika_is_answered(&url, &client, &queue, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_is_answered_in_a_queue_it_named_only_where_the_service_was_told_of_the_prefix() {
    let url = brokers::amqp_url().unwrap();
    let prefix = unique("answers");
    let told = Connect::new(&url)
        .reply_prefix(&prefix)
        .open()
        .await
        .unwrap();
    let queue = Queue::new(&unique("told"));
    pika_is_answered(&url, &told, &queue, &format!("{prefix}.mine")).await;

    let (url, client, queue) = rabbitmq("untold").await;
    let worker = desk(&client, &queue).await;
    let ask = json!({
        "ask": queue.name(),
        "inbox": format!("{prefix}.theirs"),
        "messages": [question("gold", json!({"correlation_id": "c-1"}))],
        "replies": 0,
    });
    assert_eq!(plain::amqp(&url, &[ask]).await[0], json!([]));
    until("the request is done", Duration::from_secs(10), async || {
        let stats = client.stats(&queue).await.unwrap();
        (stats.ready == 0 && stats.dead == 0).then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_py_asks_and_is_answered_in_the_stream_it_made() {
    let (url, client, queue) = redis("ask").await;
    let worker = desk(&client, &queue).await;
    let (inbox, stream) = (format!("ls:reply:{}", unique("py")), stream_key(&queue));
    let ask = |symbol: &str, more: &[(&str, &str)]| {
        let body = json!({"symbol": symbol}).to_string();
        let fields = [("type", "quote.get"), ("body", &body), ("reply_to", &inbox)];
        plain::add(&stream, &[&fields[..], more].concat())
    };
    let asked = plain::redis(
        &url,
        &[
            json!(["XADD", inbox, "MAXLEN", "0", "*", "made", "1"]),
            json!(["PEXPIRE", inbox, "60000"]),
            ask("gold", &[("correlation_id", "c-1"), ("id", "m-1")]),
            ask("silver", &[("id", "m-2")]),
            ask("", &[("correlation_id", "c-3")]),
            ask("broken", &[("correlation_id", "c-4")]),
            json!(["XREAD", "BLOCK", "20000", "STREAMS", inbox, "0"]),
        ],
    )
    .await;
    assert!(!asked[6].is_null(), "nothing was read");
    let mut replies = BTreeMap::new();
    until("four replies", Duration::from_secs(20), async || {
        let entries = plain::stream(&url, &inbox).await;
        let entries = entries.iter().map(plain::fields);
        replies = entries
            .map(|fields| (fields["correlation_id"].clone(), fields))
            .collect();
        (replies.len() == 4).then_some(())
    })
    .await;
    worker.stop().await;
    for (id, price) in [("c-1", 4), ("m-2", 6)] {
        let reply = &replies[id];
        let expected = [
            ("type", "quote.get.reply"),
            ("body", &format!("{{\"price\":{price}}}")),
            ("id", &reply["id"]),
            ("content_type", "application/json"),
            ("correlation_id", id),
            ("sent_at", &reply["sent_at"]),
            ("reply", "last"),
            ("reply_number", &reply["reply_number"]),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert_eq!(reply, &expected);
        assert!(is_about(
            reply["sent_at"].parse().unwrap(),
            SystemTime::now()
        ));
        assert!(reply["reply_number"].parse::<u64>().is_ok());
    }
    for (id, reason) in [("c-3", "fault"), ("c-4", "permanent")] {
        assert_eq!(replies[id]["reply"], "fault", "{id}");
        let body: Value = serde_json::from_str(&replies[id]["body"]).unwrap();
        assert_eq!(body["reason"], reason);
    }
    let left = plain::redis(&url, &[json!(["PTTL", inbox])]).await;
    assert!(left[0].as_i64().is_some_and(|ms| ms > 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_reply_address_on_rabbitmq_is_never_written_to_and_harms_no_other_reply() {
    let (url, client, queue) = rabbitmq("forged").await;
    let (_, _, victim) = rabbitmq("victim").await;
    let worker = desk(&client, &queue).await;
    let victims = [
        victim.name().to_owned(),
        format!("{}.dlq", victim.name()),
        format!("{}.quarantine", victim.name()),
    ];
    let forged = victims.iter().map(String::as_str).chain([
        "",
        "amq.rabbitmq.reply-to.g1h2.x",
        "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA3ODYxMzA3NgAAIAMAAAAHawAcew==.13nTvnTMlw3zuefM/zsRNw==",
        "amq.gen-nobody-has-this-one",
        "amq.gen-../orders",
        "longshore.delay.v1.30.00",
    ]);
    let forged: Vec<Value> = forged
        .map(|to| {
            let mut message = question("gold", json!({"correlation_id": "c-1", "reply_to": to}));
            message["to"] = queue.name().into();
            message
        })
        .collect();
    plain::amqp(&url, &forged).await;
    let real = [question("gold", json!({"correlation_id": "real"}))];
    for inbox in ["amq.rabbitmq.reply-to", ""] {
        let replies = ask(&url, &queue, inbox, &real).await;
        assert_eq!(replies["real"]["body"], "{\"price\":4}");
    }
    until("all are handled", Duration::from_secs(20), async || {
        let stats = client.stats(&queue).await.unwrap();
        (stats.ready + stats.in_flight.unwrap_or(0) == 0).then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
    for name in &victims {
        let found = plain::amqp(&url, &[json!({"from": name})]).await.remove(0);
        assert_eq!(found, Value::Null, "{name} was written to");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_reply_address_on_redis_is_never_written_to_and_harms_no_other_reply() {
    let (url, client, queue) = redis("forged").await;
    let (_, _, victim) = redis("victim").await;
    let worker = desk(&client, &queue).await;
    let (stream, own) = (stream_key(&queue), unique("reply"));
    let (text, list, inbox) = (
        format!("ls:reply:{own}-text"),
        format!("ls:reply:{own}-list"),
        format!("ls:reply:{own}"),
    );
    let nobody = format!("ls:reply:{own}-nobody");
    let victims = ["stream", "delayed", "dead", "meta", "wake"]
        .map(|what| format!("ls:{{{}}}:{what}", victim.name()));
    let elsewhere = format!("other:reply:{own}");
    let ask = |id: &str, to: &str| {
        let fields = [
            ("type", "quote.get"),
            ("body", "{\"symbol\":\"gold\"}"),
            ("correlation_id", id),
            ("reply_to", to),
        ];
        plain::add(&stream, &fields)
    };
    let mut commands = vec![
        json!(["SET", text, "untouched"]),
        json!(["RPUSH", list, "untouched"]),
        json!(["XADD", elsewhere, "*", "untouched", "1"]),
    ];
    let odd = [
        &*text,
        &list,
        &nobody,
        &elsewhere,
        "",
        "ls:reply:",
        "ls:reply:\n",
    ];
    let forged = victims.iter().map(String::as_str).chain(odd);
    commands.extend(forged.map(|to| ask("forged", to)));
    commands.extend([
        json!(["XADD", inbox, "MAXLEN", "0", "*", "made", "1"]),
        ask("real", &inbox),
        json!(["XREAD", "BLOCK", "20000", "STREAMS", inbox, "0"]),
        json!(["XLEN", inbox]),
    ]);
    let answers = plain::redis(&url, &commands).await;
    assert_eq!(answers.last().unwrap(), 1, "the real one alone");
    until("all are handled", Duration::from_secs(20), async || {
        let stats = client.stats(&queue).await.unwrap();
        (stats.ready + stats.in_flight.unwrap_or(0) == 0).then_some(())
    })
    .await;
    worker.stop().await;
    let found = plain::redis(
        &url,
        &[
            json!(["GET", text]),
            json!(["LRANGE", list, "0", "-1"]),
            json!(["XLEN", elsewhere]),
            json!(["XLEN", victims[0]]),
            json!(["XLEN", victims[2]]),
            json!([
                "EXISTS",
                nobody,
                victims[1],
                victims[4],
                "ls:reply:",
                "ls:reply:\n"
            ]),
        ],
    )
    .await;
    assert_eq!(
        found,
        [
            json!("untouched"),
            json!(["untouched"]),
            json!(1),
            json!(0),
            json!(0),
            json!(0)
        ]
    );
    assert_eq!(client.stats(&queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_plain_client_that_cannot_be_read_is_answered_with_a_fault() {
    let url = brokers::amqp_url().unwrap();
    let (url, client, queue) = with_queue(url, "unread").await;
    let worker = desk(&client, &queue).await;
    let question =
        json!({"body": "{", "properties": {"type": "quote.get", "correlation_id": "c-1"}});
    let replies = ask(&url, &queue, "amq.rabbitmq.reply-to", &[question]).await;
    let reply = &replies["c-1"];
    assert_eq!(reply["properties"]["headers"]["longshore-reply"], "fault");
    let body: Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["reason"], "undecodable");
    assert_eq!(only_dead(&client, &queue).await.reason, Reason::Undecodable);
    worker.stop().await;
}
