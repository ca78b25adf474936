//! What an operator sees of a service in the broker's own tools.

use std::time::Duration;

use longshore::{Connect, Queue};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{job::publish_jobs, waiting::until, witness::Witness};

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
    // A connection has its name from its second command on.
    until("all are named", Duration::from_secs(10), async || {
        let listed = broker.redis_command(&["CLIENT", "LIST"]).await.unwrap();
        let listed = listed.to_string();
        let ours: Vec<_> = listed
            .lines()
            .filter(|line| !line.contains("cmd=client|list"))
            .collect();
        let named = |line: &&str| line.contains(" name=billing_service");
        (ours.len() >= 2 && ours.iter().all(named)).then_some(())
    })
    .await;
    worker.stop().await;
}
