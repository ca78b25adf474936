//! A private Redis for one test, and a consumer to drive a source with.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod member;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_core::{
    ConnectOptions, Declare, Delivery, Destination, Envelope, Limits, Name, Outgoing, Part,
    Receipt, Result, Settlement, Settler, Source, Subscription, Topology, Transport, Verdict,
};
use longshore_testing::brokers::Broker;

/// A private Redis and a plain client of it.
pub struct Server {
    pub broker: Broker,
}

impl Server {
    /// With these lines of `redis.conf`.
    pub async fn start(config: &[&str]) -> Self {
        let mut builder = Broker::redis();
        for line in config {
            builder = builder.config(*line);
        }
        Self {
            broker: builder.start().await.unwrap(),
        }
    }

    pub fn url(&self) -> String {
        self.broker.url()
    }

    pub fn try_query<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        command.query(&mut connection)
    }

    /// One command of a plain client, words separated by spaces.
    pub fn query<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        self.try_query(&command).unwrap()
    }

    /// Owner and count of every pending entry of a queue, in order.
    pub fn pending(&self, name: &str) -> Vec<(String, u64)> {
        let rows: Vec<(String, String, u64, u64)> = self.query(&format!(
            "XPENDING ls:{{{name}}}:stream longshore - + 10000"
        ));
        rows.into_iter()
            .map(|(_, owner, _, count)| (owner, count))
            .collect()
    }

    pub async fn connect(&self) -> Arc<dyn Transport> {
        self.connect_with(options()).await
    }

    pub async fn connect_with(&self, options: ConnectOptions) -> Arc<dyn Transport> {
        longshore_redis::connect(&self.url(), options)
            .await
            .unwrap()
    }
}

pub fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.name = "test".into();
    options
}

/// Waits for something that has to come true.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn queue(name: &str) -> Name {
    Name::new(name).unwrap()
}

pub fn subscription(name: &str, prefetch: u16, lock: Duration) -> Subscription {
    Subscription {
        topology: Arc::new(Topology::new(queue(name))),
        declare: Declare::Create,
        part: Part::Lane(0),
        ownership: None,
        prefetch,
        lock,
        suspect_returns: 2,
        limits: Limits::default(),
    }
}

pub fn message(name: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let mut envelope = Envelope::new("test", body.into());
    envelope.id = "id".into();
    Outgoing {
        to: Destination::Queue(queue(name), Part::Lane(0)),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

pub async fn publish(
    transport: &Arc<dyn Transport>,
    name: &str,
    bodies: impl IntoIterator<Item = String>,
) {
    let batch = bodies.into_iter().map(|body| message(name, body)).collect();
    for answer in transport.publish(batch).await {
        answer.unwrap();
    }
}

/// Both ends of a subscription.
pub struct Consumer {
    pub source: Box<dyn Source>,
    pub settler: Arc<dyn Settler>,
}

impl Consumer {
    pub async fn new(transport: &Arc<dyn Transport>, subscription: Subscription) -> Self {
        let (source, settler) = transport.subscribe(subscription).await.unwrap();
        Self { source, settler }
    }

    /// What arrives within `within`, until there are `count`.
    pub async fn receive_within(&mut self, count: usize, within: Duration) -> Vec<Delivery> {
        let mut got = Vec::new();
        let deadline = tokio::time::Instant::now() + within;
        while got.len() < count {
            let more = poll_fn(|cx| self.source.poll_receive(cx, count - got.len(), &mut got));
            match tokio::time::timeout_at(deadline, more).await {
                Ok(Ok(0)) | Err(_) => break,
                Ok(more) => more.unwrap(),
            };
        }
        got
    }

    /// Exactly so many.
    pub async fn receive(&mut self, count: usize) -> Vec<Delivery> {
        let got = self.receive_within(count, Duration::from_secs(20)).await;
        assert_eq!(got.len(), count, "trouble: {:?}", self.source.trouble());
        got
    }

    pub async fn one(&mut self) -> Delivery {
        self.receive(1).await.pop().unwrap()
    }

    pub async fn settle(&mut self, delivery: Delivery, verdict: Verdict) -> Result<()> {
        let settlement = Settlement::new(
            delivery.receipt,
            delivery.attempt,
            verdict,
            delivery.envelope,
        );
        self.settler
            .settle(vec![settlement])
            .await
            .pop()
            .unwrap()
            .map_err(|refused| refused.error)
    }

    pub async fn complete(&mut self, deliveries: Vec<Delivery>) -> Vec<Result<()>> {
        let batch = deliveries
            .iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt))
            .collect();
        let answers = self.settler.settle(batch).await;
        answers
            .into_iter()
            .map(|a| a.map_err(|refused| refused.error))
            .collect()
    }

    pub async fn lost_within(&mut self, within: Duration) -> Vec<Receipt> {
        let mut lost = Vec::new();
        let poll = poll_fn(|cx| self.source.poll_lost(cx, &mut lost));
        let _ = tokio::time::timeout(within, poll).await;
        lost
    }
}

pub fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.envelope.body.to_vec()).unwrap()
}
