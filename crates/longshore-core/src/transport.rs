//! The adapter contract: what a broker must do for Longshore. The conformance suite of
//! `longshore-testing` is its executable form.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Admin, Declare, Delivery, Envelope, Error, ErrorKind, Limits, Membership, Name, Ownership,
    Part, Receipt, ReplyAddress, Result, Settlement, Store, Text, Topology, Unsettled,
};

/// What a transport keeps by itself. Asking for more is an error at start-up.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Priority lanes.
    pub lanes: bool,
    /// Partitions with exclusive ownership and fencing tokens.
    pub partitions: bool,
    /// Topics.
    pub topics: bool,
    /// A message published to a topic reaches all bound queues or none.
    pub atomic_topics: bool,
    /// The longest delay; `None` where there are no delays.
    pub longest_delay: Option<Duration>,
    /// `settle` applies outcome, session state and dedup mark in one step; elsewhere the store is
    /// written first.
    pub atomic_settle: bool,
    /// Requests and replies.
    pub replies: bool,
    /// `publish` answers [`Published::Duplicate`] inside the dedup window.
    pub dedup_at_publish: bool,
    /// How long a delivery may stay unsettled at most; `None` without a limit.
    pub longest_lock: Option<Duration>,
    /// What was confirmed survives the death of broker and process.
    pub durable: bool,
}

/// Where a message goes. Always chosen by configuration, never by a header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// One part of a queue. The name of a lane is the priority of the envelope.
    Queue(Name, Part),
    /// Every queue bound to the topic.
    Topic(Name),
    /// A requester. One that is gone takes nothing and is no error.
    Reply(ReplyAddress),
}

/// One message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// What. Its id is set and it keeps the limits.
    pub envelope: Envelope,
    /// How long until a worker may see it.
    pub delay: Duration,
    /// The dedup window of the destination, where the id is to be taken at publish.
    pub dedup_window: Option<Duration>,
}

/// What a confirmed publish found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Stored durably.
    Accepted,
    /// The same id is known inside the dedup window; nothing was stored.
    Duplicate,
}

/// One part to consume.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The queue, declared again whenever it turns out to be missing.
    pub topology: Arc<Topology>,
    /// Whether missing things may be created.
    pub declare: Declare,
    /// Which part of it.
    pub part: Part,
    /// The right to a partition, or to the plain queue of a queue with sessions.
    pub ownership: Option<Ownership>,
    /// Unsettled deliveries at most.
    pub prefetch: u16,
    /// How long a lock lasts where the broker needs one; renewed at a third of it.
    pub lock: Duration,
    /// From how many unexplained returns on a suspect is kept apart, one at a time.
    pub suspect_returns: u32,
    /// What a delivery may be at most.
    pub limits: Limits,
}

/// A running subscription: where deliveries come from and where they are settled.
pub type Subscribed = (Box<dyn Source>, Arc<dyn Settler>);

/// Arrivals of one part.
///
/// The transport reads ahead on a task of its own, keeps the unsettled deliveries at or below the
/// prefetch, renews every lock until it is settled, and repairs everything transient by itself:
/// that shows only as a pause and in [`trouble`](Self::trouble). Dropping a source without
/// [`stop`](Self::stop) abandons what was taken, as the death of the process would.
pub trait Source: Send {
    /// Moves 1 to `max` arrived deliveries into `into` and answers how many. 0: stopped, and
    /// nothing more will come. Never waits inside, so cancelling loses nothing.
    ///
    /// # Errors
    /// The source has ended for a reason that waiting will not mend.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>>;

    /// Locks lost since the last call, each once. Deliveries not yet taken are dropped silently.
    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()>;

    /// Stops taking from the broker. What has arrived can still be taken and must be settled.
    fn stop(&mut self);

    /// Changes the prefetch of a lane; what is unsettled above it drains first.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a partition, whose prefetch belongs to the queue.
    fn set_prefetch(&mut self, prefetch: u16) -> Result<()>;

    /// Why nothing can arrive just now; `None` while all is well.
    fn trouble(&self) -> Option<Text>;
}

/// Settles the deliveries of one source.
#[async_trait]
pub trait Settler: Send + Sync {
    /// Durably notes that these are about to start, with the attempt number each start has: suspects,
    /// and in a partition every start but a first. One answer each, in order; [`ErrorKind::Stale`]:
    /// the lock is gone and it must not start.
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>>;

    /// One answer each, in order, within the confirmation time-out. Once polled it ends by itself:
    /// dropping the future leaves the answer unknown but never half of one settlement.
    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>>;
}

/// One broker. Made by its crate's `connect`, shared by everything a client does.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The name used in telemetry: `rabbitmq`, `redis`, `memory`.
    fn system(&self) -> &'static str;
    /// What it keeps by itself.
    fn capabilities(&self) -> &Capabilities;
    /// Creates or verifies a queue.
    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()>;
    /// One answer each, in order, pipelined. `Ok` only once stored durably. Dropping the future
    /// makes the rest unknown and undoes nothing.
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>>;
    /// Starts to consume one part. Waits at most the connection time-out for a broker.
    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed>;
    /// Becomes a live worker of a queue with sessions. Where a broker does not see it die, its life and
    /// its claims last so long after it has said so for the last time.
    async fn join(
        &self,
        _queue: &Arc<Topology>,
        _: Declare,
        _lock: Duration,
    ) -> Result<Box<dyn Membership>> {
        Err(unsupported("sessions are"))
    }
    /// Where dedup marks and session state live on this broker; `None` where it cannot keep them.
    fn store(&self) -> Option<Arc<dyn Store>> {
        None
    }
    /// An address for replies and what arrives there; its deliveries need no settlement. It lives as
    /// long as the source, which ends with an error when replies may have been lost.
    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        Err(unsupported("replies are"))
    }
    /// The operator's side.
    fn admin(&self) -> &dyn Admin;
    /// Ends every connection and task within this time; later calls answer [`ErrorKind::Closed`].
    async fn close(&self, within: Duration);
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} not built here"))
}

const _: fn(&dyn Transport, &dyn Source, &dyn Settler) = |_, _, _| ();
