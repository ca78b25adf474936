//! No password reaches a log, an error or a `Debug`, whatever the level and whoever logs.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore_core::{ConnectOptions, Declare, Name, Topology};
use longshore_testing::brokers::{Broker, BrokerKind};
use tracing_subscriber::fmt::MakeWriter;

const CANARY: &str = "c4n4ry-p4ssw0rd";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_canary_password_is_found_nowhere() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");

    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    for command in [
        &["add_user", "me", CANARY][..],
        &["set_permissions", "me", ".*", ".*", ".*"],
    ] {
        broker.rabbitmqctl(command).await.expect("a user");
    }
    let host = broker.addr(0);
    let mut shown = String::new();
    let good = format!("amqp://me:{CANARY}@{host}");
    let options = ConnectOptions::default();
    shown += &format!("{options:?}");
    let transport = longshore_amqp::connect(&good, options.clone())
        .await
        .expect("a connection");
    let topology = Topology::new(Name::new("orders").expect("a name"));
    transport
        .declare(&topology, Declare::Create)
        .await
        .expect("declared");
    shown += &format!(
        "{:?}",
        transport
            .admin()
            .dead_letters(&topology.queue, None, 1)
            .await
    );
    transport.close(Duration::from_secs(2)).await;
    shown += &format!("{:?}", transport.declare(&topology, Declare::Create).await);
    for bad in [
        format!("amqp://me:{CANARY}x@{host}"),
        format!("amqp://me:{CANARY}@{host}/nowhere"),
        format!("amqp://me:{CANARY}@127.0.0.1:1"),
        format!("amqp://me:{CANARY}@{host}?password={CANARY}"),
        format!("amqp://{CANARY}@{host}"),
        format!("amqp://me:{CANARY}@example.org"),
        format!("http://me:{CANARY}@{host}"),
    ] {
        let mut hurried = options.clone();
        hurried.connect_timeout = Duration::from_secs(2);
        let error = longshore_amqp::connect(&bad, hurried)
            .await
            .err()
            .expect("a refusal");
        shown += &format!("{error} {error:?}");
    }

    let log = String::from_utf8_lossy(&log.0.lock().expect("a log")).into_owned();
    assert!(log.contains("lapin"), "lapin logs at this level");
    assert!(!log.contains(CANARY), "in the log");
    assert!(!shown.contains(CANARY), "in what is shown: {shown}");
}
