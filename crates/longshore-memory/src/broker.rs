//! What all transports on one broker share.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use longshore_core::{Claim, ConnectOptions, ErrorKind, Name, Receipt, Transport};

use crate::{state::Shared, transport::MemoryTransport};

/// A broker in this process, for tests that open several transports on it as if each were a process.
///
/// Its clock and its ids are those of the options it was made with. It lives as long as any transport or source
/// of it.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

impl MemoryBroker {
    /// Messages and dead letters one queue holds unless configured otherwise.
    pub const CAPACITY: usize = 1_000_000;

    /// An empty broker.
    pub fn new(options: &ConnectOptions) -> Self {
        Self::with_capacity(options, Self::CAPACITY)
    }

    /// An empty broker whose queues hold at most `capacity` messages and dead letters each; a publish
    /// beyond that is answered with [`ErrorKind::Full`](longshore_core::ErrorKind::Full).
    pub fn with_capacity(options: &ConnectOptions, capacity: usize) -> Self {
        Self {
            shared: Arc::new(Shared::new(options, capacity)),
        }
    }

    /// Another transport to this broker.
    pub fn open(&self) -> Arc<dyn Transport> {
        Arc::new(MemoryTransport::new(self.shared.clone()))
    }

    /// Ends every lock, every ownership and every inbox, as cut connections to a broker would: the
    /// deliveries come back with their starts counted, their sources report the locks as lost, the
    /// memberships what they owned, and the sources of partitions and inboxes end with an error.
    pub fn lose_locks(&self) {
        self.shared.change(|state, wakers| {
            for queue in state.queues.values_mut() {
                queue.lose_locks(wakers);
            }
            state.inboxes.end(None, ErrorKind::Unknown, wakers);
        });
    }

    /// Ends one lock of a lane, as one that ran out would: its message comes back with its start
    /// counted, and its source reports it as lost. `false` where there is no such lock; those of a
    /// partition last as long as its ownership.
    pub fn lose_lock(&self, receipt: Receipt) -> bool {
        self.shared.change(|state, wakers| {
            let mut lanes = state.queues.values_mut().flat_map(|q| q.lanes.values_mut());
            lanes.any(|lane| lane.lose(receipt, wakers))
        })
    }

    /// Takes one partition of a queue from its owner, as a lease that ran out would; `false` where
    /// nobody owns it.
    pub fn lose_ownership(&self, queue: &Name, partition: u16) -> bool {
        self.shared.change(|state, wakers| {
            let queue = state.queues.get_mut(queue);
            queue.is_some_and(|queue| {
                let of = queue.partitions;
                queue.lose_claim(of, Claim::Partition(partition), wakers)
            })
        })
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}
