//! The transport: publishing, and the door to everything else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Declare, Error, ErrorKind, Membership, Outgoing, Published, ReplyAddress,
    Result, Source, Store, Subscribed, Subscription, Topology, Transport, defaults,
};

use crate::{
    inbox::InboxSource, membership::MemoryMembership, source::MemorySource, state::Shared,
};

/// One client of a broker in this process.
pub(crate) struct MemoryTransport {
    pub(crate) shared: Arc<Shared>,
    client: u64,
    closed: AtomicBool,
    capabilities: Capabilities,
}

impl MemoryTransport {
    /// A client that is open.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.lanes = true;
        capabilities.topics = true;
        capabilities.atomic_topics = true;
        capabilities.partitions = true;
        capabilities.dedup_at_publish = true;
        capabilities.atomic_settle = true;
        capabilities.replies = true;
        capabilities.longest_delay = Some(defaults::LONGEST_DELAY);
        Self {
            client: shared.change(|state, _| state.serial()),
            shared,
            closed: AtomicBool::new(false),
            capabilities,
        }
    }

    /// An error once the client was closed.
    pub(crate) fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        Ok(())
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn system(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.open()?;
        self.shared
            .change(|state, _| state.declare(topology, declare))
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        let now = self.shared.clock.monotonic();
        self.shared.change(|state, wakers| {
            batch
                .into_iter()
                .map(|outgoing| {
                    self.open()?;
                    state.publish(outgoing, &self.shared.store, now, wakers)
                })
                .collect()
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        self.open()?;
        let subscribed = MemorySource::subscribe(&self.shared, self.client, subscription)?;
        // A close in between has ended the sources it saw; this one it may not have seen.
        self.open()?;
        Ok(subscribed)
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        _: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.open()?;
        self.shared
            .change(|state, _| state.declare(queue, declare))?;
        let of = queue.partitions;
        let membership = MemoryMembership::join(&self.shared, self.client, &queue.queue, of)?;
        self.open()?;
        Ok(membership)
    }

    /// That of the broker, shared by all its clients: see [`MemoryStore`](crate::MemoryStore).
    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(self.shared.store.clone())
    }

    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        self.open()?;
        let inbox = InboxSource::open(&self.shared, self.client);
        self.open()?;
        Ok(inbox)
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn close(&self, _within: Duration) {
        self.closed.store(true, Ordering::Release);
        self.shared.change(|state, wakers| {
            for queue in state.queues.values_mut() {
                queue.end(self.client, wakers);
            }
            state
                .inboxes
                .end(Some(self.client), ErrorKind::Closed, wakers);
        });
    }
}
