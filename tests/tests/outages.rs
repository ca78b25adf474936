//! Nothing transient ends a worker or loses a confirmed message.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use longshore::{Client, Connect, Health, Queue, WorkerHandle};
use longshore_testing::{
    brokers::{Broker, BrokerKind},
    proxy::{Flow, Proxy},
};
use longshore_tests::{
    load::{Handled, Publisher},
    unique,
    waiting::until,
};

/// A broker behind a proxy, a publisher and a worker with a client each, under way.
struct UnderWay {
    broker: Broker,
    proxy: Proxy,
    queue: Queue,
    publisher: Publisher,
    worker: WorkerHandle,
    handled: Handled,
    _clients: [Client; 2],
}

impl UnderWay {
    async fn start(kind: BrokerKind) -> Self {
        let broker = Broker::start(kind).await.unwrap();
        let proxy = Proxy::start(broker.addr(0)).await.unwrap();
        let url = proxy.url(&broker.url());
        let connect = || Connect::new(&url).heartbeat(Duration::from_secs(2)).open();
        let clients = [connect().await.unwrap(), connect().await.unwrap()];
        let queue = Queue::new(&unique("outage"));
        let handled = Handled::default();
        let worker = handled
            .worker(&clients[1], &queue, Duration::ZERO)
            .await
            .unwrap();
        let publisher = Publisher::start(clients[0].clone(), queue.clone());
        let all = Self {
            broker,
            proxy,
            queue,
            publisher,
            worker,
            handled,
            _clients: clients,
        };
        all.goes_on("before the fault", Duration::from_secs(20))
            .await;
        all
    }

    /// Waits until a hundred more jobs are handled, and answers how long that took.
    async fn goes_on(&self, when: &str, within: Duration) -> Duration {
        let (begun, before) = (Instant::now(), self.handled.count());
        let what = format!("jobs are handled {when}");
        until(&what, within, async || {
            (self.handled.count() >= before + 100).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// Every confirmed job was handled.
    async fn nothing_is_lost(self) {
        let account = self.publisher.stop().await;
        let confirmed = account.confirmed();
        let handled = &self.handled;
        until(
            "all confirmed jobs are handled",
            Duration::from_secs(60),
            async || handled.missing(&confirmed).is_empty().then_some(()),
        )
        .await;
        let (unknown, refused) = account.unconfirmed();
        println!(
            "{} confirmed, {unknown} unknown, {refused} refused",
            confirmed.len()
        );
        assert_eq!(self.worker.health(), Health::Ready);
        self.worker.stop().await;
    }
}

async fn killed_and_restarted(kind: BrokerKind) {
    let mut all = UnderWay::start(kind).await;
    all.broker.kill().await.unwrap();
    until(
        "the worker says it is not ready",
        Duration::from_secs(5),
        async || matches!(all.worker.health(), Health::NotReady(_)).then_some(()),
    )
    .await;
    all.broker.start_again().await.unwrap();
    let took = all
        .goes_on("after the restart", Duration::from_secs(10))
        .await;
    println!("back {took:?} after the broker");
    all.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_killed_and_restarted_is_worked_with_again_within_10_s() {
    killed_and_restarted(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_killed_and_restarted_is_worked_with_again_within_10_s() {
    killed_and_restarted(BrokerKind::Redis).await;
}

async fn reset(kind: BrokerKind) {
    let all = UnderWay::start(kind).await;
    for _ in 0..3 {
        all.proxy.reset_all().await;
        let took = all.goes_on("after a reset", Duration::from_secs(4)).await;
        println!("back {took:?} after a reset");
    }
    all.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_connections_to_rabbitmq_cost_no_message() {
    reset(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_connections_to_redis_cost_no_message() {
    reset(BrokerKind::Redis).await;
}

async fn half_open(kind: BrokerKind) {
    let all = UnderWay::start(kind).await;
    all.proxy.set_both(Flow::Freeze);
    until(
        "the worker says it is not ready",
        Duration::from_secs(15),
        async || matches!(all.worker.health(), Health::NotReady(_)).then_some(()),
    )
    .await;
    all.proxy.pass().await.unwrap();
    all.goes_on("after the silence", Duration::from_secs(15))
        .await;
    all.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_to_rabbitmq_is_given_up_and_made_again() {
    half_open(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_to_redis_is_given_up_and_made_again() {
    half_open(BrokerKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_queue_deleted_underneath_is_declared_again_and_consumed() {
    let all = UnderWay::start(BrokerKind::RabbitMq).await;
    all.broker
        .rabbitmqctl(&["delete_queue", all.queue.name()])
        .await
        .unwrap();
    all.goes_on("after the queue was deleted", Duration::from_secs(10))
        .await;
    all.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_stream_deleted_underneath_is_declared_again_and_consumed() {
    let all = UnderWay::start(BrokerKind::Redis).await;
    let stream = format!("ls:{{{}}}:stream", all.queue.name());
    all.broker.redis_command(&["DEL", &stream]).await.unwrap();
    all.goes_on("after the stream was deleted", Duration::from_secs(10))
        .await;
    all.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_scripts_or_groups_gets_them_again_from_the_start_of_the_stream() {
    let all = UnderWay::start(BrokerKind::Redis).await;
    let stream = format!("ls:{{{}}}:stream", all.queue.name());
    for _ in 0..3 {
        all.broker
            .redis_command(&["SCRIPT", "FLUSH", "SYNC"])
            .await
            .unwrap();
        all.broker
            .redis_command(&["XGROUP", "DESTROY", &stream, "longshore"])
            .await
            .unwrap();
        all.goes_on("without scripts and group", Duration::from_secs(10))
            .await;
    }
    all.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_by_the_operator_are_made_again() {
    let all = UnderWay::start(BrokerKind::RabbitMq).await;
    all.broker
        .rabbitmqctl(&["close_all_connections", "maintenance"])
        .await
        .unwrap();
    all.goes_on("after the connections were closed", Duration::from_secs(5))
        .await;
    all.nothing_is_lost().await;
}
