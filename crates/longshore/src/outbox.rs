//! What a handler wants published once it has succeeded.

use std::sync::Arc;

use bytes::Bytes;
use longshore_core::{
    Error, ErrorKind, Outgoing, Result, Topology,
    chaos::{CrashPoint, Flaw},
};

use crate::{Client, answer::Answer};

/// More than this many messages of one handler are a mistake, not a batch.
const ROOM: usize = 10_000;

/// What a handler wants published once it has succeeded, in order.
#[derive(Default)]
pub(crate) struct Outbox {
    queues: Vec<Arc<Topology>>,
    batch: Vec<Outgoing>,
    /// The new state of its session; `None` inside clears it.
    pub(crate) state: Option<Option<Bytes>>,
    /// To whoever asked, after everything else.
    pub(crate) answer: Option<Answer>,
}

impl Outbox {
    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.answer.is_none()
    }

    /// The number the next message has among its siblings.
    pub(crate) fn next_index(&self) -> u32 {
        u32::try_from(self.batch.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn keep(&mut self, queue: Option<Arc<Topology>>, out: Outgoing) -> Result<()> {
        if self.batch.len() >= ROOM {
            return Err(Error::new(
                ErrorKind::Full,
                format!("a handler may publish at most {ROOM} messages through its context"),
            ));
        }
        if let Some(queue) = queue
            && !self.queues.contains(&queue)
        {
            self.queues.push(queue);
        }
        self.batch.push(out);
        Ok(())
    }

    /// Publishes all of it but the answer. The first failure stands for the whole: the handler runs
    /// again and publishes the same ids.
    pub(crate) async fn send(self, client: &Client) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        for queue in &self.queues {
            client.ensure(queue).await?;
        }
        for sent in client.send_batch(self.batch).await {
            if !Flaw::OutboxUnconfirmed.on() {
                sent?;
            }
        }
        CrashPoint::OutboxSent.reached();
        Ok(())
    }
}
