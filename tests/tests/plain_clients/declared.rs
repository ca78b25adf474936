//! What a plain client finds on the broker is what the wire format names.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use longshore::{HandlerError, Queue, Topic};
use longshore_testing::brokers::{self, Broker, BrokerKind};
use longshore_tests::{
    job::Job,
    plain, unique,
    witness::{Witness, dead},
};
use serde_json::json;

use crate::millis;

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_of_queues_on_rabbitmq_are_those_of_the_wire_format() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let queue = Queue::new("orders");
    let delayed = client.publish(&queue, &Job { number: 1 });
    delayed.delay(Duration::from_secs(60)).await.unwrap();
    let listed = broker
        .rabbitmqctl(&["list_queues", "name", "durable", "arguments"])
        .await
        .unwrap()
        .replace("\"\"", "[]");
    let consumed = [
        "{\"x-queue-type\",\"quorum\"}",
        "{\"x-delivery-limit\",1000000000}",
        "{\"x-dead-letter-exchange\",[]}",
        "{\"x-dead-letter-routing-key\",\"orders.dlq\"}",
        "{\"x-dead-letter-strategy\",\"at-least-once\"}",
        "{\"x-overflow\",\"reject-publish\"}",
        "{\"x-consumer-timeout\",86400000}",
    ];
    let lines: BTreeMap<&str, (&str, &str)> = listed
        .lines()
        .filter(|line| !line.starts_with("name\tdurable"))
        .filter_map(|line| {
            let (name, rest) = line.split_once('\t')?;
            Some((name, rest.split_once('\t')?))
        })
        .collect();
    for (name, expected) in [
        ("orders", &consumed[..]),
        ("orders.quarantine", &consumed),
        ("orders.dlq", &consumed[..2]),
        ("longshore.delay.v1.30.lost", &consumed[..2]),
    ] {
        let (durable, arguments) = lines[name];
        assert_eq!(durable, "true", "{name}");
        for argument in expected {
            assert!(
                arguments.contains(argument),
                "{name} lacks {argument}: {arguments}"
            );
        }
        assert_eq!(
            arguments.matches("\"x-").count(),
            expected.len(),
            "{name}: {arguments}"
        );
    }
    for level in 0..30_u32 {
        let name = format!("longshore.delay.v1.30.{level:02}");
        let found = lines.get(&*name);
        let (durable, arguments) =
            found.unwrap_or_else(|| panic!("no {name} among {:?}", lines.keys()));
        assert_eq!(*durable, "true");
        let below = match level {
            0 => "longshore.delay.v1.30.delivery".to_owned(),
            _ => format!("longshore.delay.v1.30.{:02}", level - 1),
        };
        for argument in [
            format!("{{\"x-message-ttl\",{}}}", 50_u64 << level),
            format!("{{\"x-dead-letter-exchange\",\"{below}\"}}"),
            "{\"x-dead-letter-strategy\",\"at-least-once\"}".to_owned(),
            "{\"x-overflow\",\"reject-publish\"}".to_owned(),
            "{\"x-queue-type\",\"quorum\"}".to_owned(),
            "{\"x-delivery-limit\",1000000000}".to_owned(),
        ] {
            assert!(
                arguments.contains(&argument),
                "level {level} lacks {argument}: {arguments}"
            );
        }
        assert_eq!(
            arguments.matches("\"x-").count(),
            6,
            "level {level}: {arguments}"
        );
    }
    let others: Vec<_> = lines
        .keys()
        .filter(|name| !name.starts_with("orders") && !name.starts_with("longshore.delay.v1.30."))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_redis_are_those_of_the_wire_format() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let (topic, name) = (Topic::new(&unique("topic")), unique("keys"));
    let queue = Queue::new(&name).subscribe_to(&topic);
    client.declare(&queue).await.unwrap();
    client
        .publish(&queue, &Job { number: 1 })
        .delay(Duration::from_secs(3600))
        .await
        .unwrap();
    client.publish(&queue, &Job { number: 2 }).await.unwrap();
    let witness = Witness::default();
    let worker = witness
        .worker(&client, &queue, |_, _| Err(HandlerError::permanent("no")))
        .await
        .unwrap();
    dead(&client, &queue, 1).await;
    worker.stop().await;
    let key = |what: &str| format!("ls:{{{name}}}:{what}");
    let topic_key = format!("ls:topic:{{{}}}", topic.name());
    let replies = plain::redis(
        &url,
        &[
            json!(["TYPE", key("stream")]),
            json!(["TYPE", key("delayed")]),
            json!(["TYPE", key("dead")]),
            json!(["TYPE", topic_key]),
            json!(["SMEMBERS", topic_key]),
            json!(["XLEN", key("stream")]),
            json!(["ZRANGE", key("delayed"), "0", "-1", "WITHSCORES"]),
            json!(["XINFO", "GROUPS", key("stream")]),
            json!(["KEYS", format!("*{name}*")]),
        ],
    )
    .await;
    assert_eq!(
        replies[..4],
        [
            json!("stream"),
            json!("zset"),
            json!("stream"),
            json!("set")
        ]
    );
    assert_eq!(replies[4], json!([name]));
    assert_eq!(replies[5], 0, "what is done is deleted");
    let due: f64 = replies[6][1].as_str().unwrap().parse().unwrap();
    assert!(
        (due - millis(SystemTime::now()) as f64 - 3_600_000.0).abs() < 60_000.0,
        "{due}"
    );
    assert_eq!(replies[7].as_array().unwrap().len(), 1);
    assert_eq!(replies[7][0][1], "longshore");
    let known = ["stream", "delayed", "dead", "wake"].map(key);
    for found in replies[8].as_array().unwrap() {
        assert!(
            known.iter().any(|key| found == key),
            "an undocumented key: {found}"
        );
    }
}
