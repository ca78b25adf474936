//! What all transports on one broker share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::Waker,
};

use longshore_core::{Clock, ConnectOptions, Error, ErrorKind, Name, Result, Transport};

use crate::{
    lane::Lane,
    queue::{LaneName, Queue},
    transport::MemoryTransport,
};

/// A broker in this process, for tests that open several transports on it as if each were a process.
///
/// Its clock is that of the options it was made with. It lives as long as any transport or source
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
    /// beyond that is answered with [`ErrorKind::Full`].
    pub fn with_capacity(options: &ConnectOptions, capacity: usize) -> Self {
        let shared = Arc::new(Shared {
            clock: options.clock.clone(),
            state: Mutex::new(State {
                capacity,
                ..State::default()
            }),
        });
        Self { shared }
    }

    /// Another transport to this broker.
    pub fn open(&self) -> Arc<dyn Transport> {
        Arc::new(MemoryTransport::new(self.shared.clone()))
    }

    /// Ends every lock, as a cut connection to a broker would: the deliveries come back with their
    /// starts counted, and their sources report the locks as lost.
    pub fn lose_locks(&self) {
        self.shared.change(|state, wakers| {
            for queue in state.queues.values_mut() {
                queue.lose_locks(wakers);
            }
        });
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

/// The state and its clock.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Shared {
    /// One step on the state. Who can go on because of it is woken once the lock is free.
    pub(crate) fn change<T>(&self, step: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let answer = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            step(&mut state, &mut wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        answer
    }
}

/// Everything the broker knows. Ordered maps, so that one seed gives one history.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) queues: BTreeMap<Name, Queue>,
    /// The queues bound to each topic.
    pub(crate) topics: BTreeMap<Name, BTreeSet<Name>>,
    pub(crate) capacity: usize,
    serial: u64,
}

impl State {
    /// A number nobody else has: transports and sources are told apart by it.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A queue that must be there.
    pub(crate) fn queue(&mut self, name: &Name) -> Result<&mut Queue> {
        self.queues
            .get_mut(name)
            .ok_or_else(|| no_such("queue", name))
    }

    /// A lane that should be there.
    pub(crate) fn lane(&mut self, queue: &Name, lane: &LaneName) -> Option<&mut Lane> {
        self.queues.get_mut(queue)?.lanes.get_mut(lane)
    }
}

/// The error for what was never declared.
pub(crate) fn no_such(what: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::NoSuchQueue,
        format!("there is no {what} \"{name}\"; declare it first"),
    )
}
