//! What an operator can see and do.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{Envelope, Name, Reason, Result, Text};

/// Figures of one queue, as far as the broker gives them: what it does not is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Waiting for a worker, over all parts.
    pub ready: u64,
    /// Locked by a worker.
    pub in_flight: Option<u64>,
    /// Waiting for their time.
    pub delayed: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// Consumers the broker knows.
    pub consumers: Option<u64>,
    /// How long the oldest ready message has waited.
    pub oldest: Option<Duration>,
}

/// A message set aside, with everything it came with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Names this dead letter for redrive and discard. Opaque.
    pub id: Text,
    /// What travelled. The body is empty where even the reader must not touch it; see `redrivable`.
    pub envelope: Envelope,
    /// Why it was set aside.
    pub reason: Reason,
    /// What happened, for a person.
    pub detail: String,
    /// How often a handler had started.
    pub attempts: u32,
    /// When it was set aside.
    pub at: Option<SystemTime>,
    /// Whether it can be sent back unaltered by this client. What is too large or too deeply
    /// nested to be read safely stays where it is, whole, until discarded.
    pub redrivable: bool,
}

impl DeadLetter {
    /// A dead letter for transports to fill in.
    pub fn new(id: Text, envelope: Envelope, reason: Reason) -> Self {
        Self {
            id,
            envelope,
            reason,
            detail: String::new(),
            attempts: 0,
            at: None,
            redrivable: true,
        }
    }
}

/// What an operator can see and do. Filters, "all" and progress are loops over these in the
/// framework.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Figures of this queue.
    async fn stats(&self, queue: &Name) -> Result<Stats>;

    /// Up to `limit` dead letters, oldest first, after the one named `after`.
    ///
    /// Reading removes nothing and counts nothing. A transport may bound how far back it can
    /// read (RabbitMQ: the oldest 1,000).
    async fn dead_letters(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Sends these back to `queue`, as first published, with their attempts reset. A dead letter is
    /// removed only once its copy is durable. One answer each, in order; an id that is not there is
    /// [`ErrorKind::Stale`](crate::ErrorKind::Stale).
    async fn redrive(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>>;

    /// Removes these for ever. One answer each, in order.
    async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>>;
}
