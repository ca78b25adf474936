//! RabbitMQ as one would use lapin by hand.

use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use anyhow::ensure;
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, poll, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::{
    contestant::{Contestant, Way, shared_out},
    job::Job,
    tally::Tally,
};

const QUEUE: &str = "bench-raw";
const PREFETCH: u16 = 512;
/// Publishes in flight.
const WINDOW: usize = 512;
/// Messages acknowledged by one frame, and how long the first of them may wait for it.
const ACKNOWLEDGE: u32 = 64;
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);

/// Consumes with `multiple` acknowledgements on the channel itself, unless it goes one by one.
pub(crate) struct RawAmqp {
    name: &'static str,
    way: Way,
    consuming: Connection,
    /// Kept: a connection closes with its last handle.
    _publishing: Connection,
    publisher: Publisher,
}

/// A channel in confirm mode.
#[derive(Clone)]
struct Publisher {
    channel: Channel,
    /// lapin numbers a publish before it queues the frames, so two threads must not do it at a time.
    turn: Arc<Mutex<()>>,
}

impl RawAmqp {
    /// Connects twice: an alarm of the broker stops whole connections that publish.
    ///
    /// # Errors
    /// What lapin says.
    pub(crate) async fn connect(url: &str, way: Way) -> anyhow::Result<Self> {
        let consuming = Connection::connect(url, ConnectionProperties::default()).await?;
        let publishing = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = publishing.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            name: match way {
                Way::OneByOne => "raw lapin, one by one",
                Way::Best => "raw lapin, best",
                Way::Tasks => "raw lapin, 512 tasks publish",
            },
            way,
            consuming,
            _publishing: publishing,
            publisher: Publisher {
                channel,
                turn: Arc::default(),
            },
        })
    }

    async fn consume_one_by_one(&self, tally: &Tally) -> anyhow::Result<()> {
        let (_channel, mut consumer) = self.subscribe().await?;
        while !tally.is_complete()
            && let Some(delivery) = consumer.next().await
        {
            let delivery = delivery?;
            handle(&delivery.data, tally)?;
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    async fn consume_best(&self, tally: &Tally) -> anyhow::Result<()> {
        let (channel, mut consumer) = self.subscribe().await?;
        let (mut last, mut waiting) = (0, 0);
        let mut written: Option<Written> = None;
        while !tally.is_complete() {
            let next = match consumer.next().now_or_never() {
                Some(next) => Some(next),
                None if waiting == 0 => Some(consumer.next().await),
                None => tokio::time::timeout(ACKNOWLEDGE_AFTER, consumer.next())
                    .await
                    .ok(),
            };
            if let Some(next) = next {
                let Some(delivery) = next else { break };
                let delivery = delivery?;
                handle(&delivery.data, tally)?;
                last = delivery.delivery_tag;
                waiting += 1;
                if waiting < ACKNOWLEDGE {
                    continue;
                }
            }
            waiting = 0;
            // The frame before this one has long been written: what counts is its error.
            if let Some(before) = written.replace(acknowledge(&channel, last).await) {
                before.await?;
            }
        }
        if let Some(before) = written {
            before.await?;
        }
        if waiting > 0 {
            acknowledge(&channel, last).await.await?;
        }
        Ok(())
    }

    async fn subscribe(&self) -> anyhow::Result<(Channel, lapin::Consumer)> {
        let channel = self.consuming.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let consumer = channel
            .basic_consume(
                QUEUE.into(),
                "bench".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok((channel, consumer))
    }
}

impl Publisher {
    async fn confirmed(&self, job: &Job) -> anyhow::Result<()> {
        let body = job.encode()?;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type("bench.job".into());
        let options = BasicPublishOptions::default();
        let confirm = self
            .channel
            .basic_publish("".into(), QUEUE.into(), options, &body, properties)
            .await?;
        ensure!(confirm.await?.is_ack(), "the broker refused a message");
        Ok(())
    }

    /// One task, a window of unconfirmed messages.
    async fn publish_window(&self, run: u32, count: u32) -> anyhow::Result<()> {
        let mut flights = FuturesUnordered::new();
        for number in 0..count {
            let job = Job::new(run, number);
            let mut flight = Box::pin(async move { self.confirmed(&job).await });
            // The first poll queues the frames.
            match poll!(&mut flight) {
                Poll::Ready(landed) => landed?,
                Poll::Pending => flights.push(flight),
            }
            if flights.len() >= WINDOW
                && let Some(landed) = flights.next().await
            {
                landed?;
                while let Some(Some(landed)) = flights.next().now_or_never() {
                    landed?;
                }
            }
        }
        while let Some(landed) = flights.next().await {
            landed?;
        }
        Ok(())
    }

    /// One of many tasks: one message at a time.
    async fn publish_share(self, run: u32, numbers: Range<u32>) -> anyhow::Result<()> {
        for number in numbers {
            let job = Job::new(run, number);
            let mut flight = Box::pin(self.confirmed(&job));
            let first = poll_fn(|cx| {
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                Poll::Ready(flight.as_mut().poll(cx))
            });
            match first.await {
                Poll::Ready(landed) => landed?,
                Poll::Pending => flight.await?,
            }
        }
        Ok(())
    }
}

type Written = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// Puts the frame on its way; the answer is when it was written.
async fn acknowledge(channel: &Channel, last: u64) -> Written {
    let channel = channel.clone();
    let mut written: Written = Box::pin(async move {
        channel
            .basic_ack(last, BasicAckOptions { multiple: true })
            .await
    });
    match poll!(&mut written) {
        Poll::Ready(answer) => Box::pin(async move { answer }),
        Poll::Pending => written,
    }
}

fn handle(body: &[u8], tally: &Tally) -> anyhow::Result<()> {
    let job: Job = serde_json::from_slice(body)?;
    tally.count(&job);
    Ok(())
}

#[async_trait]
impl Contestant for RawAmqp {
    fn name(&self) -> &str {
        self.name
    }

    fn is_raw(&self) -> bool {
        true
    }

    fn is_slow(&self) -> bool {
        self.way == Way::OneByOne
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        let channel = self.consuming.create_channel().await?;
        channel
            .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
            .await?;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(QUEUE.into(), options, arguments)
            .await?;
        Ok(())
    }

    async fn publish(&self, run: u32, count: u32) -> anyhow::Result<()> {
        match self.way {
            Way::OneByOne => {
                for number in 0..count {
                    self.publisher.confirmed(&Job::new(run, number)).await?;
                }
                Ok(())
            }
            Way::Best => self.publisher.publish_window(run, count).await,
            Way::Tasks => {
                shared_out(count, |numbers| {
                    self.publisher.clone().publish_share(run, numbers)
                })
                .await
            }
        }
    }

    async fn publish_one(&self, job: Job) -> anyhow::Result<()> {
        self.publisher.confirmed(&job).await
    }

    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()> {
        match self.way {
            Way::OneByOne => self.consume_one_by_one(&tally).await,
            Way::Best | Way::Tasks => self.consume_best(&tally).await,
        }
    }

    async fn left(&self) -> anyhow::Result<u64> {
        let channel = self.consuming.create_channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(QUEUE.into(), options, FieldTable::default())
            .await?;
        Ok(queue.message_count().into())
    }
}
