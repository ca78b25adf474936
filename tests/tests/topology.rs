//! What must exist on a broker: made where it is missing, told apart where it differs, left alone
//! where that was asked for.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use longshore::{Client, Connect, ErrorKind, HandlerError, Queue, Topic, Worker};
use longshore_testing::brokers::{self, Broker, BrokerKind};
use longshore_tests::{
    job::{Job, publish_jobs},
    plain, unique,
    waiting::until,
    witness::{Witness, dead, only_dead},
};
use serde_json::{Value, json};

/// Declaring, publishing and starting a worker all say that the queue is another one, and how.
async fn differs(client: &Client, queue: &Queue, said: &[&str]) {
    let witness = Witness::default();
    let errors = [
        client.declare(queue).await.expect_err("declared"),
        client
            .publish(queue, &Job { number: 1 })
            .await
            .expect_err("published"),
        Worker::new(client, queue, witness.router(|_, _| Ok(())))
            .start()
            .await
            .expect_err("started"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::TopologyDiffers, "{error}");
        for said in said {
            assert!(
                error.to_string().contains(said),
                "no \"{said}\" in: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_on_rabbitmq_is_an_error_that_says_what_differs() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let quorum = |more: Value| {
        let mut arguments = json!({"x-queue-type": "quorum"});
        let all = arguments.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        arguments
    };
    let ours = |dead: &str| {
        quorum(json!({
            "x-delivery-limit": 1_000_000_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }))
    };
    let cases: [(&str, Value, &[&str]); 7] = [
        ("", json!({}), &["exists with another x-"]),
        (
            "",
            json!({"x-queue-type": "classic"}),
            &["exists with another x-"],
        ),
        ("", quorum(json!({})), &["x-de"]),
        ("", quorum(json!({"x-delivery-limit": 20})), &["x-de"]),
        (
            "",
            ours("elsewhere"),
            &["x-dead-letter-routing-key", "elsewhere"],
        ),
        (".dlq", json!({}), &[".dlq", "x-queue-type"]),
        (
            ".quarantine",
            json!({"x-queue-type": "classic"}),
            &[".quarantine", "exists with another x-"],
        ),
    ];
    for (part, arguments, said) in cases {
        let name = unique("differs");
        let declare = json!({"declare": format!("{name}{part}"), "arguments": arguments});
        plain::amqp(&url, &[declare]).await;
        let said = [said, &[&*name]].concat();
        differs(&client, &Queue::new(&name), &said).await;
    }
    // The client is none the worse for it.
    let queue = Queue::new(&unique("same"));
    publish_jobs(&client, &queue, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_another_type_where_a_topic_belongs_is_an_error_that_says_so() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let topic = unique("fanout");
    plain::amqp(
        &url,
        &[json!({"declare": topic, "exchange_type": "fanout"})],
    )
    .await;
    let queue = Queue::new(&unique("bound")).subscribe_to(&Topic::new(&topic));
    differs(&client, &queue, &[&topic, "type", "fanout"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_or_a_foreign_group_on_redis_is_an_error_that_says_so() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    type Command = &'static [&'static str];
    let cases: [(&str, &[Command], &[&str]); 6] = [
        ("stream", &[&["SET", "KEY", "x"]], &["string", "stream"]),
        ("stream", &[&["LPUSH", "KEY", "x"]], &["list", "stream"]),
        ("delayed", &[&["SADD", "KEY", "x"]], &["set", "zset"]),
        ("dead", &[&["HSET", "KEY", "x", "y"]], &["hash", "stream"]),
        (
            "stream",
            &[&["XGROUP", "CREATE", "KEY", "billing", "0", "MKSTREAM"]],
            &["group"],
        ),
        (
            "stream",
            &[
                &["XGROUP", "CREATE", "KEY", "longshore", "0", "MKSTREAM"],
                &["XGROUP", "CREATE", "KEY", "billing", "0"],
            ],
            &["group"],
        ),
    ];
    for (what, commands, said) in cases {
        let name = unique("differs");
        let key = format!("ls:{{{name}}}:{what}");
        let commands: Vec<Value> = commands
            .iter()
            .map(|command| {
                command
                    .iter()
                    .map(|&word| if word == "KEY" { &*key } else { word })
                    .collect()
            })
            .collect();
        plain::redis(&url, &commands).await;
        let said = [said, &[&*key]].concat();
        differs(&client, &Queue::new(&name), &said).await;
    }
    let (topic, name) = (unique("topic"), unique("bound"));
    let key = format!("ls:topic:{{{topic}}}");
    plain::redis(&url, &[json!(["SET", key, "x"])]).await;
    let queue = Queue::new(&name).subscribe_to(&Topic::new(&topic));
    differs(&client, &queue, &[&key]).await;
}

/// The names of everything there is on a broker, for `Broker::start` ones.
async fn everything(broker: &Broker) -> BTreeSet<String> {
    match broker.kind() {
        BrokerKind::RabbitMq => {
            let mut found = BTreeSet::new();
            for what in ["queues", "exchanges"] {
                let listed = broker
                    .rabbitmqctl(&[&format!("list_{what}"), "name"])
                    .await
                    .unwrap();
                found.extend(listed.lines().map(|line| format!("{what} {line}")));
            }
            let bindings = broker.rabbitmqctl(&["list_bindings"]).await.unwrap();
            found.extend(bindings.lines().map(|line| format!("binding {line}")));
            found
        }
        _ => {
            let keys = broker
                .redis_command(&["KEYS", "*"])
                .await
                .unwrap()
                .to_string();
            keys.split_whitespace().map(str::to_owned).collect()
        }
    }
}

async fn read_only_mode(kind: BrokerKind) {
    let broker = Broker::start(kind).await.unwrap();
    let untouched = everything(&broker).await;
    let reader = Connect::new(broker.url()).read_only().open().await.unwrap();
    let topic = Topic::new("placed");
    let queue = Queue::new("orders").subscribe_to(&topic);
    let witness = Witness::default();
    let errors = [
        reader.declare(&queue).await.expect_err("declared"),
        reader
            .publish(&queue, &Job { number: 1 })
            .await
            .expect_err("published"),
        reader
            .publish(&queue, &Job { number: 1 })
            .delay(Duration::from_secs(1))
            .await
            .expect_err("delayed"),
        reader
            .publish(&topic, &Job { number: 1 })
            .await
            .expect_err("published to a topic"),
        witness
            .worker(&reader, &queue, |_, _| Ok(()))
            .await
            .expect_err("started"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    }
    assert_eq!(
        everything(&broker).await,
        untouched,
        "something was declared"
    );

    // Against what somebody else has declared, everything works.
    let owner = longshore::connect(&broker.url()).await.unwrap();
    owner.declare(&queue).await.unwrap();
    owner
        .publish(&queue, &Job { number: 0 })
        .delay(Duration::from_millis(50))
        .await
        .unwrap();
    let worker = witness
        .worker(&reader, &queue, |job, cx| {
            match (job.number, cx.attempt()) {
                (2, 1) => Err(HandlerError::retry_after(
                    Duration::from_millis(100),
                    "again",
                )),
                (3, _) => Err(HandlerError::permanent("no")),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
    witness.starts(1).await;
    let declared: BTreeSet<_> = everything(&broker).await;
    for (number, delay) in [(1, 0), (2, 0), (3, 120)] {
        reader
            .publish(&queue, &Job { number })
            .delay(Duration::from_millis(delay))
            .await
            .unwrap();
    }
    reader.publish(&topic, &Job { number: 4 }).await.unwrap();
    witness.starts(6).await;
    let letter = only_dead(&reader, &queue).await;
    reader
        .dead_letters(&queue)
        .redrive(&letter.id)
        .await
        .unwrap();
    witness.starts(7).await;
    only_dead(&reader, &queue).await;
    worker.stop().await;
    let names = |found: BTreeSet<String>| -> BTreeSet<String> {
        // Keys on Redis come and go with what is in them.
        found
            .into_iter()
            .filter(|name| !name.starts_with("ls:{orders}"))
            .collect()
    };
    assert_eq!(names(everything(&broker).await), names(declared));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_client_declares_nothing_on_rabbitmq_and_works_with_what_exists() {
    read_only_mode(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_client_declares_nothing_on_redis_and_works_with_what_exists() {
    read_only_mode(BrokerKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_client_says_what_differs_on_redis() {
    let url = brokers::redis_url().unwrap();
    let reader = Connect::new(&url).read_only().open().await.unwrap();
    let name = unique("differs");
    plain::redis(
        &url,
        &[json!(["SET", format!("ls:{{{name}}}:stream"), "x"])],
    )
    .await;
    let error = reader
        .declare(&Queue::new(&name))
        .await
        .expect_err("a string");
    assert_eq!(error.kind(), ErrorKind::TopologyDiffers);
    assert!(error.to_string().contains("string"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_named_in_rabbitmqs_tools() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let client = Connect::new(broker.url())
        .name("billing service")
        .open()
        .await
        .unwrap();
    let queue = Queue::new("orders");
    let worker = Witness::default()
        .worker(&client, &queue, |_, _| Ok(()))
        .await
        .unwrap();
    publish_jobs(&client, &queue, 1).await.unwrap();
    let listed = broker
        .rabbitmqctl(&["list_connections", "client_properties"])
        .await
        .unwrap();
    println!("{listed}");
    let connections: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with('['))
        .collect();
    assert!(!connections.is_empty());
    for connection in connections {
        for part in [
            "{\"connection_name\",\"billing service",
            "{\"product\",\"Longshore\"}",
        ] {
            assert!(connection.contains(part), "no {part} in {connection}");
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_named_in_redis_client_list() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let client = Connect::new(broker.url())
        .name("billing service")
        .open()
        .await
        .unwrap();
    let queue = Queue::new("orders");
    let worker = Witness::default()
        .worker(&client, &queue, |_, _| Ok(()))
        .await
        .unwrap();
    publish_jobs(&client, &queue, 1).await.unwrap();
    let listed = broker
        .redis_command(&["CLIENT", "LIST"])
        .await
        .unwrap()
        .to_string();
    println!("{listed}");
    let ours: Vec<_> = listed
        .lines()
        .filter(|line| !line.contains("cmd=client|list"))
        .collect();
    assert!(ours.len() >= 2);
    for connection in ours {
        assert!(connection.contains(" name=billing_service"), "{connection}");
    }
    worker.stop().await;
}

async fn fan_out(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let topic = Topic::new(&unique("placed"));
    let lonely = client
        .publish(&topic, &Job { number: 0 })
        .await
        .expect_err("no queue is bound");
    assert_eq!(lonely.kind(), ErrorKind::NoSuchQueue, "{lonely}");

    let queue = || Queue::new(&unique("bound")).subscribe_to(&topic);
    let mut queues = vec![queue(), queue(), queue()];
    for queue in &queues {
        client.declare(queue).await.unwrap();
    }
    client
        .publish(&topic, &Job { number: 1 })
        .id("first")
        .header("tenant", "blue")
        .await
        .unwrap();
    queues.push(queue());
    client.declare(&queues[3]).await.unwrap();
    client
        .publish(&topic, &Job { number: 2 })
        .id("second")
        .await
        .unwrap();

    for (n, queue) in queues.iter().enumerate() {
        let expected: &[&str] = if n < 3 {
            &["first", "second"]
        } else {
            &["second"]
        };
        let witness = Witness::default();
        let worker = witness.worker(&client, queue, |_, _| Ok(())).await.unwrap();
        let seen = witness.starts(expected.len()).await;
        worker.stop().await;
        let mut ids: Vec<_> = seen
            .iter()
            .map(|sight| sight.envelope.id.to_string())
            .collect();
        ids.sort();
        assert_eq!(ids, expected, "queue {n}");
        let first = seen.iter().find(|sight| sight.number == 1);
        assert!(first.is_none_or(|sight| sight.envelope.header("tenant") == Some("blue")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_topic_on_rabbitmq_reaches_every_queue_bound_before() {
    fan_out(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_topic_on_redis_reaches_every_queue_bound_before() {
    fan_out(&brokers::redis_url().unwrap()).await;
}

/// One queue's failure and redrive is nobody else's business.
async fn copies_are_independent(url: &str) {
    let client = longshore::connect(url).await.unwrap();
    let topic = Topic::new(&unique("placed"));
    let queues = [0, 1].map(|n| Queue::new(&unique(&format!("copy{n}"))).subscribe_to(&topic));
    for queue in &queues {
        client.declare(queue).await.unwrap();
    }
    client.publish(&topic, &Job { number: 1 }).await.unwrap();
    let (failing, fine) = (Witness::default(), Witness::default());
    let workers = [
        failing
            .worker(&client, &queues[0], |_, _| {
                Err(HandlerError::permanent("no"))
            })
            .await
            .unwrap(),
        fine.worker(&client, &queues[1], |_, _| Ok(()))
            .await
            .unwrap(),
    ];
    let letter = dead(&client, &queues[0], 1).await.remove(0);
    client
        .dead_letters(&queues[0])
        .redrive(&letter.id)
        .await
        .unwrap();
    failing.starts(2).await;
    dead(&client, &queues[0], 1).await;
    until(
        "the other queue is empty",
        Duration::from_secs(10),
        async || {
            let stats = client.stats(&queues[1]).await.ok()?;
            (stats.ready == 0 && stats.dead == 0).then_some(())
        },
    )
    .await;
    assert_eq!(fine.seen().len(), 1);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copies_of_a_topic_fail_and_come_back_independently_on_rabbitmq() {
    copies_are_independent(&brokers::amqp_url().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copies_of_a_topic_fail_and_come_back_independently_on_redis() {
    copies_are_independent(&brokers::redis_url().unwrap()).await;
}
