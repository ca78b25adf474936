//! RabbitMQ as one would use lapin by hand.

use std::{pin::Pin, sync::Arc, time::Duration};

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

use crate::{contestant::Contestant, job::Job, tally::Tally};

const QUEUE: &str = "bench-raw";
const PREFETCH: u16 = 512;
/// Publishes in flight.
const WINDOW: usize = 512;
/// Messages acknowledged by one frame, and how long the first of them may wait for it.
const ACKNOWLEDGE: u32 = 64;
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);

/// One by one: every acknowledgement and every confirmation is awaited before the next message. Best:
/// `multiple` acknowledgements on the channel itself, and a window of unconfirmed publishes in one task.
pub(crate) struct RawAmqp {
    name: &'static str,
    one_by_one: bool,
    consuming: Connection,
    /// Kept: a connection closes with its last handle.
    _publishing: Connection,
    publisher: Channel,
}

impl RawAmqp {
    /// Connects twice: an alarm of the broker stops whole connections that publish.
    ///
    /// # Errors
    /// What lapin says.
    pub(crate) async fn connect(url: &str, one_by_one: bool) -> anyhow::Result<Self> {
        let consuming = Connection::connect(url, ConnectionProperties::default()).await?;
        let publishing = Connection::connect(url, ConnectionProperties::default()).await?;
        let publisher = publishing.create_channel().await?;
        publisher
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            name: if one_by_one {
                "raw lapin, one by one"
            } else {
                "raw lapin, best"
            },
            one_by_one,
            consuming,
            _publishing: publishing,
            publisher,
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

    async fn confirmed(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type("bench.job".into());
        let confirm = self
            .publisher
            .basic_publish(
                "".into(),
                QUEUE.into(),
                BasicPublishOptions::default(),
                &body,
                properties,
            )
            .await?;
        ensure!(confirm.await?.is_ack(), "the broker refused a message");
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
        std::task::Poll::Ready(answer) => Box::pin(async move { answer }),
        std::task::Poll::Pending => written,
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
        self.one_by_one
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
        if self.one_by_one {
            for number in 0..count {
                self.confirmed(Job::new(run, number).encode()?).await?;
            }
            return Ok(());
        }
        let mut flights = FuturesUnordered::new();
        for number in 0..count {
            let mut flight = Box::pin(self.confirmed(Job::new(run, number).encode()?));
            // The first poll queues the frames.
            match poll!(&mut flight) {
                std::task::Poll::Ready(landed) => landed?,
                std::task::Poll::Pending => flights.push(flight),
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

    async fn publish_one(&self, job: Job) -> anyhow::Result<()> {
        self.confirmed(job.encode()?).await
    }

    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()> {
        match self.one_by_one {
            true => self.consume_one_by_one(&tally).await,
            false => self.consume_best(&tally).await,
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
