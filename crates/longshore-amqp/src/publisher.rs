//! Confirmed publishing: one task, one channel, many messages in flight.

mod line;
mod press;

use std::time::Duration;

use bytes::Bytes;
use lapin::{BasicProperties, types::ShortString};
use longshore_core::{
    Envelope, Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::Instant,
};

use self::press::Press;
use crate::{error::closed, link::Link};

/// Batches on their way to the task at most; their callers wait.
const INBOX: usize = 1024;

/// One message on its way to the broker.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Whether it is an error that no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Letter {
    /// A copy of what was delivered, which a queue must take.
    pub(crate) fn copy(
        exchange: ShortString,
        routing_key: ShortString,
        properties: BasicProperties,
        envelope: &Envelope,
    ) -> Self {
        let mut body = envelope.body.clone();
        if Flaw::DeadLetterCut.on() && routing_key.as_str().ends_with(".dlq") {
            body.truncate(body.len().saturating_sub(1));
        }
        Self {
            exchange,
            routing_key,
            mandatory: true,
            properties,
            body,
        }
    }
}

/// The handle of the task.
pub(crate) struct Publisher {
    inbox: mpsc::Sender<Batch>,
    /// How long a confirmation may take, from the call on.
    patience: Duration,
    task: AbortHandle,
}

struct Batch {
    letters: Vec<Letter>,
    deadline: Instant,
    answer: oneshot::Sender<Vec<Result<()>>>,
}

impl Publisher {
    /// `sent` is passed whenever something is written and not confirmed yet.
    pub(crate) fn start(link: &Link, patience: Duration, sent: CrashPoint) -> Self {
        let (inbox, mail) = mpsc::channel(INBOX);
        let task = tokio::spawn(Press::new(link.watch(), sent).run(mail));
        Self {
            inbox,
            patience,
            task: task.abort_handle(),
        }
    }

    /// One answer each, in order, within the confirmation time-out: `Ok` is stored durably,
    /// [`Unknown`](longshore_core::ErrorKind::Unknown) may be stored, everything else is not.
    ///
    /// Dropping the future undoes nothing.
    pub(crate) async fn publish(&self, letters: Vec<Letter>) -> Vec<Result<()>> {
        let count = letters.len();
        let (answer, answered) = oneshot::channel();
        let batch = Batch {
            letters,
            deadline: Instant::now() + self.patience,
            answer,
        };
        if count == 0 {
            return Vec::new();
        }
        if self.inbox.send(batch).await.is_ok()
            && let Ok(answers) = answered.await
        {
            return answers;
        }
        (0..count).map(|_| Err(closed())).collect()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
