//! What exists is another than what is declared, and everybody who asks is told so.

use longshore::{Client, Connect, ErrorKind, Queue, Topic, Worker};
use longshore_testing::brokers;
use longshore_tests::{
    job::{Job, publish_jobs},
    plain, unique,
    witness::Witness,
};
use serde_json::{Value, json};

/// Declaring, publishing and starting a worker all say that the queue is another one, and how.
pub(crate) async fn differs(client: &Client, queue: &Queue, said: &[&str]) {
    let witness = Witness::default();
    let errors = [
        client.declare(queue).await.expect_err("declared"),
        client
            .publish(queue, &Job { number: 1 })
            .key("key")
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
