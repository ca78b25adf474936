//! No broker: a channel, with a boxed handler behind it.

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, mpsc};

use crate::{contestant::Contestant, job::Job, tally::Tally};

/// Bodies through an unbounded tokio channel, taken in batches; nothing is acknowledged and nothing can be
/// retried, so this is a ceiling rather than a rival.
pub(crate) struct RawMemory {
    sender: mpsc::UnboundedSender<Vec<u8>>,
    receiver: Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
}

type Handler = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

const BATCH: usize = 64;

impl RawMemory {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(receiver),
        }
    }
}

#[async_trait]
impl Contestant for RawMemory {
    fn name(&self) -> &str {
        "tokio channel, batches of 64"
    }

    fn is_raw(&self) -> bool {
        true
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn publish(&self, run: u32, count: u32) -> anyhow::Result<()> {
        for number in 0..count {
            self.sender.send(Job::new(run, number).encode()?)?;
        }
        Ok(())
    }

    async fn publish_one(&self, job: Job) -> anyhow::Result<()> {
        Ok(self.sender.send(job.encode()?)?)
    }

    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()> {
        let counting = Arc::clone(&tally);
        let handler: Handler = Box::new(move |body| {
            let tally = Arc::clone(&counting);
            Box::pin(async move {
                let job: Job = serde_json::from_slice(&body)?;
                tally.count(&job);
                Ok(())
            })
        });
        let mut receiver = self.receiver.try_lock().context("one consumer at a time")?;
        let mut batch = Vec::with_capacity(BATCH);
        while !tally.is_complete() && receiver.recv_many(&mut batch, BATCH).await > 0 {
            for body in batch.drain(..) {
                handler(body).await?;
            }
        }
        Ok(())
    }

    async fn left(&self) -> anyhow::Result<u64> {
        Ok(self.receiver.lock().await.len() as u64)
    }
}
