//! The transport: publishing, and the door to everything else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Declare, Destination, Envelope, Error, ErrorKind, Name, Outgoing,
    Published, Result, Subscribed, Subscription, Topology, Transport, defaults,
};

use crate::{
    delay::delay_is_possible,
    entry::Entry,
    source::MemorySource,
    state::{Shared, State, no_such},
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
                    state.publish(outgoing, now, wakers)
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

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn close(&self, _within: Duration) {
        self.closed.store(true, Ordering::Release);
        self.shared.change(|state, wakers| {
            for queue in state.queues.values_mut() {
                queue.end(self.client, wakers);
            }
        });
    }
}

impl State {
    /// Stores one message, or says why not.
    fn publish(
        &mut self,
        outgoing: Outgoing,
        now: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<Published> {
        let Outgoing {
            to,
            envelope,
            delay,
            ..
        } = outgoing;
        delay_is_possible(delay)?;
        let capacity = self.capacity;
        match to {
            Destination::Queue(name, part) => {
                let queue = self.queue(&name)?;
                if queue.stored >= capacity {
                    return Err(full(&name, capacity));
                }
                let lane = queue.lane_for(part, envelope.priority.as_ref());
                let lane = lane.ok_or_else(|| no_such("such lane of the queue", &name))?;
                queue.add(&lane, Entry::new(envelope, now), now, delay, wakers);
            }
            Destination::Topic(topic) => {
                self.publish_to_topic(&topic, &envelope, now, delay, wakers)?;
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the memory transport has no request/reply",
                ));
            }
        }
        Ok(Published::Accepted)
    }

    /// A copy to every bound queue, or to none where one of them is full.
    fn publish_to_topic(
        &mut self,
        topic: &Name,
        envelope: &Envelope,
        now: Duration,
        delay: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<()> {
        let bound = self.topics.get(topic).filter(|queues| !queues.is_empty());
        let bound = bound.ok_or_else(|| no_such("queue bound to the topic", topic))?;
        for name in bound {
            let stored = self.queues.get(name).map_or(0, |queue| queue.stored);
            if stored >= self.capacity {
                return Err(full(name, self.capacity));
            }
        }
        for name in bound {
            if let Some(queue) = self.queues.get_mut(name) {
                let lane = queue.lane_of_topic(envelope.priority.as_ref());
                queue.add(&lane, Entry::new(envelope.clone(), now), now, delay, wakers);
            }
        }
        Ok(())
    }
}

fn full(queue: &Name, capacity: usize) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("the queue \"{queue}\" holds {capacity} messages and dead letters, its capacity"),
    )
}
