//! Connections that break and brokers that die.

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Settlement};
use longshore_testing::{
    brokers::{self, Broker, BrokerKind},
    proxy::Proxy,
};

use crate::rig::{PATIENCE, Rig, body, message};

async fn proxied() -> (Proxy, Rig) {
    let url = brokers::amqp_url().expect("a broker");
    let upstream = url.rsplit('@').next().expect("a host").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let rig = Rig::on(&proxy.url(&url)).await;
    (proxy, rig)
}

#[tokio::test]
async fn after_a_reset_the_lock_is_reported_lost_and_the_message_comes_again() {
    let (proxy, rig) = proxied().await;
    rig.publish(["x"]).await;
    let mut taker = rig.subscribe().await;
    let held = taker.one().await;
    let from = Instant::now();
    proxy.reset_all().await;
    assert_eq!(taker.lost().await, [held.receipt]);
    let stale = Settlement::complete(held.receipt, 1);
    let refused = taker.settle_one(stale).await.expect_err("a lost lock");
    assert_eq!(refused.error.kind(), ErrorKind::Stale);
    let again = taker.one().await;
    assert!(
        from.elapsed() < Duration::from_secs(2),
        "{:?}",
        from.elapsed()
    );
    assert_eq!((body(&again), again.attempt), ("x", 2));
    assert_ne!(again.receipt, held.receipt);
    taker.complete(vec![again]).await;
    rig.publish(["y"]).await;
    assert_eq!(body(&taker.one().await), "y");
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_after_two_heartbeats() {
    let url = brokers::amqp_url().expect("a broker");
    let upstream = url.rsplit('@').next().expect("a host").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let rig = Rig::on(&format!("{}?heartbeat=1", proxy.url(&url))).await;
    let mut taker = rig.subscribe().await;
    rig.publish(["x"]).await;
    let held = taker.one().await;
    proxy.set_both(longshore_testing::proxy::Flow::Freeze);
    let from = Instant::now();
    assert_eq!(taker.lost().await, [held.receipt]);
    assert!(
        from.elapsed() < Duration::from_secs(5),
        "{:?}",
        from.elapsed()
    );
    proxy.pass().await.expect("passing again");
    assert_eq!(body(&taker.one().await), "x");
}

#[tokio::test]
async fn a_killed_broker_comes_back_and_nothing_confirmed_is_lost() {
    let mut broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    let mut taker = rig.subscribe().await;
    assert_eq!(taker.source.trouble(), None);
    rig.publish((0..50).map(|n| n.to_string())).await;
    let mut delayed = rig.outgoing(message("delayed"));
    delayed.delay = Duration::from_secs(3);
    rig.transport
        .publish(vec![delayed])
        .await
        .pop()
        .expect("one")
        .expect("a confirm");
    let held = taker.exactly(50).await;
    broker.kill().await.expect("dead");
    assert_eq!(taker.lost().await.len(), 50);
    // Known at once, long before anybody gives up reconnecting.
    let told = crate::rig::soon(|| taker.source.trouble()).await;
    assert!(told.is_some(), "no trouble is told");
    let mut during = rig
        .transport
        .publish(vec![rig.outgoing(message("down"))])
        .await;
    let error = during.pop().expect("an answer").expect_err("no broker");
    assert!(error.is_transient(), "{error}");
    broker.start_again().await.expect("a broker again");
    let up = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 51 {
        let some = taker.some(64).await;
        seen.extend(some.iter().map(|d| body(d).to_owned()));
        taker.complete(some).await;
    }
    eprintln!("all back {:?} after the broker", up.elapsed());
    assert!(seen.contains("delayed") && held.iter().all(|d| seen.contains(body(d))));
    rig.publish(["after"]).await;
    assert_eq!(body(&taker.one().await), "after");
    assert_eq!(taker.source.trouble(), None);
}

#[tokio::test]
async fn while_the_broker_is_short_of_memory_publishing_is_refused_and_completing_works() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    let mut taker = rig.subscribe().await;
    rig.publish((0..10).map(|n| n.to_string())).await;
    let held = taker.exactly(10).await;
    let watermark = |at: &'static str| {
        let broker = &broker;
        async move {
            let command = ["set_vm_memory_high_watermark", at];
            broker.rabbitmqctl(&command).await.expect("a watermark");
        }
    };
    watermark("0.00001").await;
    // The broker tells a connection that it is blocked when that publishes; the first one is lost
    // between the two.
    let mut batch = rig
        .transport
        .publish(vec![rig.outgoing(message("first"))])
        .await;
    let first = batch.pop().expect("an answer").expect_err("blocked");
    assert_eq!(first.kind(), ErrorKind::Unknown);
    let mut batch = rig
        .transport
        .publish(vec![rig.outgoing(message("second"))])
        .await;
    let second = batch.pop().expect("an answer").expect_err("blocked");
    assert_eq!(second.kind(), ErrorKind::Full, "{second}");
    taker.complete(held).await;
    watermark("0.4").await;
    let from = Instant::now();
    rig.publish(["after"]).await;
    assert!(from.elapsed() < PATIENCE);
    // What was unknown may have arrived; what was refused has not.
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "after") {
        let some = taker.some(64).await;
        seen.extend(some.iter().map(|d| body(d).to_owned()));
        taker.complete(some).await;
    }
    assert!(!seen.contains(&"second".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again_and_consumed() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    let mut taker = rig.subscribe().await;
    rig.publish(["x"]).await;
    let held = taker.one().await;
    for name in [
        rig.queue().to_string(),
        format!("{}.quarantine", rig.queue()),
    ] {
        broker
            .rabbitmqctl(&["delete_queue", &name])
            .await
            .expect("deleted");
    }
    assert_eq!(taker.lost().await, [held.receipt]);
    let from = Instant::now();
    loop {
        let mut answers = rig
            .transport
            .publish(vec![rig.outgoing(message("y"))])
            .await;
        match answers.pop().expect("an answer") {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSuchQueue),
        }
        assert!(from.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(body(&taker.one().await), "y");
    // The ladder finds the new queue too.
    let mut delayed = rig.outgoing(message("z"));
    delayed.delay = Duration::from_millis(300);
    rig.transport
        .publish(vec![delayed])
        .await
        .pop()
        .expect("one")
        .expect("a confirm");
    assert_eq!(body(&taker.one().await), "z");
}
