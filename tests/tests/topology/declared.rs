//! What is there once lanes and sessions are declared and worked on: what `docs/wire.md` names, and
//! nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use longshore::{
    Client, Connect, Context, HandlerError, Queue, Router, Topic, Worker, WorkerHandle,
};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{job::Job, plain, waiting::until, witness::dead};
use serde_json::{Value, json};

/// Everything of one kind, by name, with the columns asked for.
async fn listed(broker: &Broker, what: &str, columns: &[&str]) -> BTreeMap<String, Vec<String>> {
    let command = [&[what, "name"], columns].concat();
    let listed = broker.rabbitmqctl(&command).await.unwrap();
    let rows = listed
        .lines()
        .map(|line| line.split('\t').map(str::to_owned));
    let rows = rows.filter_map(|mut row| Some((row.next()?, row.collect::<Vec<_>>())));
    rows.filter(|(name, row)| row.len() == columns.len() && name != "name")
        .collect()
}

/// The bindings to the queues and exchanges of one queue: source, routing key, destination.
async fn bindings(broker: &Broker, of: &str) -> BTreeSet<[String; 3]> {
    let columns = [
        "list_bindings",
        "source_name",
        "routing_key",
        "destination_name",
    ];
    let listed = broker.rabbitmqctl(&columns).await.unwrap();
    let rows = listed.lines().filter_map(|line| {
        let row: Vec<_> = line.split('\t').map(str::to_owned).collect();
        <[String; 3]>::try_from(row).ok()
    });
    // The broker binds every queue to the default exchange, whose name is empty.
    let ours = rows
        .filter(|[source, _, to]| !source.is_empty() && source != "source_name" && to.contains(of));
    ours.collect()
}

/// The arguments of a queue, and no others.
fn has_arguments(name: &str, shown: &str, expected: &[(&str, &str)]) {
    for (argument, value) in expected {
        let found = [
            format!("{{\"{argument}\",{value}}}"),
            format!("{{\"{argument}\",\"{value}\"}}"),
        ];
        let found = found.iter().any(|found| shown.contains(found));
        assert!(found, "{name} lacks {argument} = {value}: {shown}");
    }
    let count = shown.matches("{\"").count();
    assert_eq!(count, expected.len(), "{name}: {shown}");
}

const LASTING: [(&str, &str); 2] = [
    ("x-queue-type", "quorum"),
    ("x-delivery-limit", "1000000000"),
];

fn consumed(dead: &str) -> Vec<(&str, &str)> {
    let more = [
        ("x-dead-letter-exchange", "[]"),
        ("x-dead-letter-routing-key", dead),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
        ("x-consumer-timeout", "86400000"),
    ];
    [&LASTING[..], &more].concat()
}

/// The queues but those of the delays, durable or not, with their arguments.
async fn queues(broker: &Broker) -> BTreeMap<String, Vec<String>> {
    let columns = ["durable", "exclusive", "arguments"];
    let mut queues = listed(broker, "list_queues", &columns).await;
    queues.retain(|name, _| !name.starts_with("longshore.delay.v1.30."));
    for row in queues.values_mut() {
        row[2] = row[2].replace("\"\"", "[]");
    }
    queues
}

fn owned(rows: &[[&str; 3]]) -> BTreeSet<[String; 3]> {
    rows.iter().map(|row| row.map(str::to_owned)).collect()
}

/// A routing key of the delays that ends at this queue.
fn delayed(queue: &str) -> String {
    format!("{}{queue}", "*.".repeat(30))
}

const DELIVERY: &str = "longshore.delay.v1.30.delivery";

#[tokio::test(flavor = "multi_thread")]
async fn lanes_on_rabbitmq_are_declared_as_the_wire_format_says() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let topic = Topic::new("placed");
    let queue = Queue::new("orders")
        .lanes(["high", "normal", "low"])
        .subscribe_to(&topic);
    client.declare(&queue).await.unwrap();

    let queues = queues(&broker).await;
    let consumed = consumed("orders.dlq");
    let expected = [
        ("orders", &consumed[..]),
        ("orders.p.high", &consumed),
        ("orders.p.low", &consumed),
        ("orders.quarantine", &consumed),
        ("orders.dlq", &LASTING),
    ];
    for (name, arguments) in expected {
        assert_eq!(queues[name][0], "true", "{name}");
        assert_ne!(queues[name][1], "true", "{name}");
        has_arguments(name, &queues[name][2], arguments);
    }
    assert_eq!(queues.len(), expected.len(), "{:?}", queues.keys());

    let exchanges = listed(&broker, "list_exchanges", &["type", "durable", "arguments"]).await;
    let rest = "{\"alternate-exchange\",\"longshore.rest.orders\"}";
    for (name, kind, arguments) in [
        ("placed", "topic", ""),
        ("longshore.lanes.orders", "topic", rest),
        ("longshore.rest.orders", "fanout", ""),
    ] {
        let found = &exchanges[name];
        assert_eq!(found[..2], [kind, "true"], "{name}");
        assert_eq!(found[2].trim_matches(['[', ']']), arguments, "{name}");
    }
    let ours = exchanges
        .keys()
        .filter(|name| name.contains("orders"))
        .count();
    assert_eq!(ours, 2, "{exchanges:?}");

    let delayed = [
        "orders",
        "orders.p.high",
        "orders.p.low",
        "orders.quarantine",
    ]
    .map(|name| [DELIVERY.to_owned(), delayed(name), name.to_owned()]);
    let mut expected = owned(&[
        ["placed", "#", "longshore.lanes.orders"],
        ["longshore.lanes.orders", "high.#", "orders.p.high"],
        ["longshore.lanes.orders", "low.#", "orders.p.low"],
        ["longshore.rest.orders", "", "orders"],
    ]);
    expected.extend(delayed);
    assert_eq!(bindings(&broker, "orders").await, expected);
}

/// A worker of four partitions whose handler keeps a state, fails once, and sets one message aside.
async fn sessions(client: &Client, queue: &Queue) -> WorkerHandle {
    let router = Router::new().handle_fn(|job: Job, cx: Context| async move {
        cx.session().set_state(&job.number)?;
        match (job.number, cx.attempt()) {
            (0, 1) => Err("not yet".into()),
            (1, _) => Err(HandlerError::permanent("never")),
            _ => Ok::<_, HandlerError>(()),
        }
    });
    let worker = Worker::new(client, queue, router).lock(Duration::from_secs(2));
    let worker = worker.start().await.unwrap();
    for number in 0..16 {
        let job = client.publish(queue, &Job { number });
        let job = job.key(format!("key-{number}")).id(format!("job-{number}"));
        job.await.unwrap();
    }
    let later = client.publish(queue, &Job { number: 16 });
    let later = later
        .key("foobar")
        .id("later")
        .delay(Duration::from_secs(3600));
    later.await.unwrap();
    dead(client, queue, 1).await;
    until("all are handled", Duration::from_secs(30), async || {
        (client.stats(queue).await.ok()?.ready == 0).then_some(())
    })
    .await;
    worker
}

fn four(name: &str) -> Queue {
    let topic = Topic::new("placed");
    let queue = Queue::new(name).sessions(4).subscribe_to(&topic);
    queue.dedup_window(Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_rabbitmq_are_declared_as_the_wire_format_says() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.unwrap();
    // A busy machine may take its time over a dozen new queues.
    let client = Connect::new(broker.url()).confirm_timeout(Duration::from_secs(60));
    let client = client.open().await.unwrap();
    let worker = sessions(&client, &four("orders")).await;

    let found = queues(&broker).await;
    let consumed = consumed("orders.dlq");
    let marker = [&LASTING[..], &[("x-max-length", "8")]].concat();
    let partitions = [0, 1, 2, 3].map(|n| format!("orders.s4.{n}"));
    let markers = partitions.each_ref().map(|name| format!("{name}.marker"));
    let mut expected: Vec<(&str, &[(&str, &str)])> = vec![
        ("orders", &consumed),
        ("orders.quarantine", &consumed),
        ("orders.dlq", &LASTING),
        ("orders.s4.members", &[]),
    ];
    expected.extend(partitions.iter().map(|name| (&**name, &consumed[..])));
    expected.extend(markers.iter().map(|name| (&**name, &marker[..])));
    for (name, arguments) in &expected {
        assert_eq!(found[*name][0], "true", "{name}");
        assert_ne!(found[*name][1], "true", "{name}");
        let shown = found[*name][2].replace("{\"x-queue-type\",\"classic\"}", "");
        has_arguments(name, &shown, arguments);
    }
    let locks = partitions.iter().map(|name| format!("{name}.lock"));
    let locks: BTreeSet<_> = locks.chain(["orders.s4.lock".to_owned()]).collect();
    let others = found
        .iter()
        .filter(|(name, _)| expected.iter().all(|(known, _)| known != name));
    let others: Vec<_> = others.collect();
    for (name, row) in &others {
        assert!(locks.contains(*name), "an undocumented queue: {name}");
        assert_eq!(row[..2], ["false", "true"], "{name}");
    }
    assert_eq!(others.len(), locks.len(), "{others:?}");

    let mut delayed: BTreeSet<_> = ["orders", "orders.quarantine"]
        .into_iter()
        .chain(partitions.iter().map(String::as_str))
        .map(|name| [DELIVERY.to_owned(), delayed(name), name.to_owned()])
        .collect();
    delayed.extend(owned(&[
        ["placed", "*", "orders"],
        ["placed", "*.*.*.*.*.*.*.0.0", "orders.s4.0"],
        ["placed", "*.*.*.*.*.*.*.0.1", "orders.s4.1"],
        ["placed", "*.*.*.*.*.*.*.1.0", "orders.s4.2"],
        ["placed", "*.*.*.*.*.*.*.1.1", "orders.s4.3"],
    ]));
    assert_eq!(bindings(&broker, "orders").await, delayed);

    worker.stop().await;
    client.close().await;
    let left = queues(&broker).await;
    assert!(
        locks.iter().all(|name| !left.contains_key(name)),
        "{:?}",
        left.keys()
    );
    for marker in &markers {
        let look = vec![json!({"from": marker}); 8];
        let found = plain::amqp(&broker.url(), &look).await;
        let found: Vec<_> = found.iter().filter(|found| !found.is_null()).collect();
        let newest = found.iter().map(|found| is_a_marker(marker, found)).max();
        // Nothing was running when the worker left.
        assert!(
            newest.is_some_and(|(_, _, clean)| clean),
            "{marker}: {found:?}"
        );
    }
}

/// Token, number and whether it is clean.
fn is_a_marker(of: &str, found: &Value) -> (u64, u64, bool) {
    assert_eq!(found["body"], "", "{of}: {found}");
    let properties = &found["properties"];
    assert_eq!(properties["type"], "longshore.marker", "{of}");
    let headers = properties["headers"].as_object().unwrap();
    for table in ["started", "returned"] {
        let mut counts = headers[table].as_object().unwrap().values();
        assert!(counts.all(Value::is_u64), "{of}: {headers:?}");
    }
    assert!(headers["unseen"].is_boolean(), "{of}: {headers:?}");
    assert_eq!(headers.len(), 6, "{of}: {headers:?}");
    let number = |name: &str| headers[name].as_u64().unwrap();
    assert!(number("token") > 0, "{of}: {headers:?}");
    (
        number("token"),
        number("number"),
        headers["clean"].as_bool().unwrap(),
    )
}

/// The keys there are, with their types.
async fn keys(url: &str) -> BTreeMap<String, String> {
    let found = plain::redis(url, &[json!(["KEYS", "*"])]).await.remove(0);
    let found = found.as_array().unwrap().clone();
    let kinds: Vec<_> = found.iter().map(|key| json!(["TYPE", key])).collect();
    let kinds = plain::redis(url, &kinds).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found.iter().map(text).zip(kinds.iter().map(text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_on_redis_are_declared_as_the_wire_format_says() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let queue = Queue::new("orders").lanes(["high", "normal", "low"]);
    let queue = queue.subscribe_to(&Topic::new("placed"));
    client.declare(&queue).await.unwrap();
    let expected = [
        ("ls:{orders}:stream", "stream"),
        ("ls:{orders}:p.high:stream", "stream"),
        ("ls:{orders}:p.low:stream", "stream"),
        ("ls:{orders}:meta", "hash"),
        ("ls:topic:{placed}", "set"),
    ];
    let expected = expected.map(|(key, kind)| (key.to_owned(), kind.to_owned()));
    assert_eq!(keys(&broker.url()).await, BTreeMap::from(expected));
    let streams = ["", "p.high:", "p.low:"]
        .map(|part| json!(["XINFO", "GROUPS", format!("ls:{{orders}}:{part}stream")]));
    for groups in plain::redis(&broker.url(), &streams).await {
        assert_eq!(
            (groups.as_array().unwrap().len(), &groups[0][1]),
            (1, &json!("longshore"))
        );
    }
    let meta = plain::redis(&broker.url(), &[json!(["HKEYS", "ls:{orders}:meta"])])
        .await
        .remove(0);
    let meta: BTreeSet<_> = meta
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(meta, BTreeSet::from(["p.high", "p.low"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_redis_have_the_keys_of_the_wire_format() {
    let broker = Broker::start(BrokerKind::Redis).await.unwrap();
    let client = longshore::connect(&broker.url()).await.unwrap();
    let worker = sessions(&client, &four("orders")).await;
    let found = keys(&broker.url()).await;
    let mut expected: BTreeMap<String, &str> = BTreeMap::new();
    for (key, kind) in [
        ("ls:{orders}:stream", "stream"),
        ("ls:{orders}:meta", "hash"),
        ("ls:{orders}:forwarder", "string"),
        ("ls:{orders.s4}:members", "zset"),
        ("ls:topic:{placed}", "set"),
        // "foobar" is in partition 0 of 4.
        ("ls:{orders.s4.0}:delayed", "zset"),
    ] {
        expected.insert(key.to_owned(), kind);
    }
    for n in 0..4 {
        for (key, kind) in [
            ("stream", "stream"),
            ("lease", "string"),
            ("token", "string"),
        ] {
            expected.insert(format!("ls:{{orders.s4.{n}}}:{key}"), kind);
        }
    }
    for (key, kind) in &expected {
        assert_eq!(
            found.get(key).map(String::as_str),
            Some(*kind),
            "{key} among {found:?}"
        );
    }
    let mut seen = BTreeSet::new();
    for (key, kind) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        let rest = key
            .strip_prefix("ls:{orders.s4.")
            .and_then(|rest| rest.split_once("}:"));
        let (partition, what) = rest.unwrap_or_else(|| panic!("an undocumented key: {key}"));
        assert!(matches!(partition, "0" | "1" | "2" | "3"), "{key}");
        let known = match what.split_once(':').unwrap_or((what, "")) {
            // The length of the key, 0x1f, the key, the id.
            ("dedup", name) if name.contains("\u{1f}") => "string",
            ("state", name) if name.starts_with("key-") => "hash",
            ("dead", "") => "stream",
            ("wake", "") => "list",
            _ => panic!("an undocumented key: {key}"),
        };
        assert_eq!(kind, known, "{key}");
        seen.insert(what.split(':').next().unwrap().to_owned());
    }
    for what in ["dedup", "state", "dead"] {
        assert!(seen.contains(what), "no {what} among {found:?}");
    }
    let asked = [
        json!(["HGETALL", "ls:{orders}:meta"]),
        json!(["PTTL", "ls:{orders.s4.0}:lease"]),
        json!(["PTTL", "ls:{orders}:forwarder"]),
        json!(["ZCARD", "ls:{orders.s4}:members"]),
        json!(["SMEMBERS", "ls:topic:{placed}"]),
    ];
    let answers = plain::redis(&broker.url(), &asked).await;
    let meta: BTreeSet<_> = answers[0]
        .as_array()
        .unwrap()
        .chunks(2)
        .map(|pair| (pair[0].clone().to_string(), pair[1].clone().to_string()))
        .collect();
    let text = |a: &str, b: &str| (format!("\"{a}\""), format!("\"{b}\""));
    assert_eq!(
        meta,
        BTreeSet::from([text("partitions", "4"), text("dedup", "60000")])
    );
    for lease in &answers[1..3] {
        assert!(
            lease.as_i64().is_some_and(|ms| (1..=2000).contains(&ms)),
            "{lease}"
        );
    }
    assert_eq!(answers[3..], [json!(1), json!(["orders"])]);
    worker.stop().await;
}
