//! A client that declares nothing.

use std::{collections::BTreeSet, time::Duration};

use longshore::{Connect, ErrorKind, HandlerError, Queue, Topic};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{
    job::Job,
    witness::{Witness, only_dead},
};

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
