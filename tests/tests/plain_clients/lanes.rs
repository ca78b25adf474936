//! Plain clients publish into lanes.

use longshore::{Client, HandlerError, Queue, Topic};
use longshore_testing::brokers;
use longshore_tests::{
    plain, unique,
    witness::{Witness, dead},
};
use serde_json::{Value, json};

/// A queue of three lanes that is bound to a topic.
async fn with_lanes(url: &str) -> (Client, Queue, Topic) {
    let client = longshore::connect(url).await.unwrap();
    let topic = Topic::new(&unique("topic"));
    let lanes = ["high", "normal", "low"];
    let queue = Queue::new(&unique("lanes"))
        .lanes(lanes)
        .subscribe_to(&topic);
    client.declare(&queue).await.unwrap();
    (client, queue, topic)
}

/// Each job is seen in the lane it lies in, whatever it says itself, and one that fails for good
/// comes back to it.
async fn are_seen_in(client: &Client, queue: &Queue, expected: &[(u64, Option<&str>)]) {
    let witness = Witness::default();
    let fails = |_: &_, _: &_| Err(HandlerError::permanent("never"));
    let worker = witness.worker(client, queue, fails).await.unwrap();
    for redriven in [false, true] {
        let letters = dead(client, queue, expected.len()).await;
        let seen = witness
            .starts(expected.len() * (1 + usize::from(redriven)))
            .await;
        let mut seen: Vec<_> = seen
            .iter()
            .rev()
            .take(expected.len())
            .map(|sight| (sight.number, sight.envelope.priority.as_deref()))
            .collect();
        seen.sort();
        assert_eq!(seen, expected, "redriven: {redriven}");
        if !redriven {
            for letter in letters {
                client
                    .dead_letters(queue)
                    .redrive(&letter.id)
                    .await
                    .unwrap();
            }
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_publishes_into_a_lane_is_in_it() {
    let url = brokers::amqp_url().unwrap();
    let (client, queue, topic) = with_lanes(&url).await;
    let name = queue.name();
    let body = |number: u64| json!({"number": number}).to_string();
    let message = |number, to: String, properties: Value| json!({"to": to, "body": body(number), "properties": properties});
    let to_topic = |number, key: &str| json!({"exchange": topic.name(), "to": key, "body": body(number), "properties": {"type": "job"}});
    plain::amqp(
        &url,
        &[
            message(0, format!("{name}.p.high"), json!({"type": "job"})),
            message(
                1,
                format!("{name}.p.low"),
                json!({"type": "job", "headers": {"longshore-priority": "high"}}),
            ),
            message(
                2,
                name.to_owned(),
                json!({"type": "job", "headers": {"longshore-priority": "low"}}),
            ),
            to_topic(3, "high"),
            to_topic(4, "low.0.0.0.0.0.0.0.0"),
            to_topic(5, "middling"),
            to_topic(6, "normal"),
        ],
    )
    .await;
    let (high, low) = (Some("high"), Some("low"));
    let expected = [
        (0, high),
        (1, low),
        (2, None),
        (3, high),
        (4, low),
        (5, None),
        (6, None),
    ];
    are_seen_in(&client, &queue, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_py_adds_to_a_lane_is_in_it() {
    let url = brokers::redis_url().unwrap();
    let (client, queue, _) = with_lanes(&url).await;
    let stream = |part: &str| format!("ls:{{{}}}:{part}stream", queue.name());
    let add = |number: u64, part: &str, more: &[(&str, &str)]| {
        let body = json!({"number": number}).to_string();
        plain::add(
            &stream(part),
            &[&[("type", "job"), ("body", &*body)][..], more].concat(),
        )
    };
    plain::redis(
        &url,
        &[
            add(0, "p.high:", &[]),
            add(1, "p.low:", &[("priority", "high")]),
            add(2, "", &[("priority", "low")]),
        ],
    )
    .await;
    are_seen_in(
        &client,
        &queue,
        &[(0, Some("high")), (1, Some("low")), (2, None)],
    )
    .await;
}
