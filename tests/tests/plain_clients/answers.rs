//! A client of ours asks, a plain service answers.

use std::time::Duration;

use longshore::{Client, Queue, RequestError};
use longshore_tests::plain;
use serde_json::{Value, json};

use crate::{
    rabbitmq, redis,
    requests::{GetQuote, NotListed, Quote},
    stream_key,
};

/// Three questions one after the other, each answered in another way.
async fn asks(client: &Client, queue: &Queue) {
    let ask = |symbol: &str| {
        let symbol = symbol.to_owned();
        let timeout = Duration::from_secs(30);
        let asked = GetQuote { symbol };
        async move { client.request(queue, &asked).timeout(timeout).await }
    };
    assert_eq!(ask("gold").await.unwrap(), Quote { price: 4 });
    let Err(RequestError::Fault(fault)) = ask("").await else {
        panic!("no fault");
    };
    assert_eq!(fault.get::<NotListed>().unwrap().symbol, "");
    let error = ask("silver").await.unwrap_err();
    assert!(matches!(error, RequestError::Undecodable(_)), "{error:?}");
    assert_eq!(
        ask("oil").await.unwrap(),
        Quote { price: 3 },
        "after what nobody asked for"
    );
}

const FAULT: &str = "{\"reason\":\"fault\",\"type\":\"not.listed\",\"body\":{\"symbol\":\"\"}}";

fn were_asked(asked: &Value, symbol: fn(&Value) -> Value) {
    let asked: Vec<Value> = asked.as_array().unwrap().iter().map(symbol).collect();
    let expected =
        ["gold", "", "silver", "oil"].map(|symbol| json!({"symbol": symbol}).to_string());
    assert_eq!(asked, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_answers_what_a_client_of_ours_asks() {
    let (url, client, queue) = rabbitmq("served").await;
    let answers = json!([
        [{"body": "{\"price\":4}"}],
        [{"body": FAULT, "properties": {"headers": {"longshore-reply": "fault"}}}],
        [{"body": "gold"}],
        [
            {"body": "{\"price\":1}", "properties": {"correlation_id": "somebody else's"}},
            {"body": "{\"price\":3}", "properties": {"content_type": "application/json", "type": "quote"}},
            {"body": "{\"price\":2}"},
        ],
    ]);
    let serve = [json!({"serve": queue.name(), "answers": answers})];
    let (served, ()) = tokio::join!(plain::amqp(&url, &serve), asks(&client, &queue));
    were_asked(&served[0], |request| request["body"].clone());
    let properties = &served[0][0]["properties"];
    assert_eq!(properties["type"], "quote.get");
    assert!(
        properties["reply_to"]
            .as_str()
            .unwrap()
            .starts_with("amq.gen-")
    );
    assert!(properties["correlation_id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_py_answers_what_a_client_of_ours_asks() {
    let (url, client, queue) = redis("served").await;
    let answers = json!([
        [{"body": "{\"price\":4}"}],
        [{"body": FAULT, "reply": "fault"}],
        [{"body": "gold"}],
        [
            {"body": "{\"price\":1}", "correlation_id": "somebody else's"},
            {"body": "{\"price\":3}", "content_type": "application/json", "type": "quote"},
            {"body": "{\"price\":2}"},
        ],
    ]);
    let serve = [json!({"serve": stream_key(&queue), "answers": answers})];
    let (served, ()) = tokio::join!(plain::redis(&url, &serve), asks(&client, &queue));
    were_asked(&served[0], |request| request["body"].clone());
    assert_eq!(served[0][0]["type"], "quote.get");
    assert!(
        served[0][0]["reply_to"]
            .as_str()
            .unwrap()
            .starts_with("ls:reply:")
    );
}
