//! What a broker in this process knows, and the one way to change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
};

use longshore_core::{Clock, ConnectOptions, Error, ErrorKind, Ids, Name, Result, Standing, Text};

use crate::{
    entry::Entry,
    lane::{Lane, LaneName},
    queue::Queue,
    reply::Inboxes,
    store::MemoryStore,
};

/// The state, its clock and its ids.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) store: Arc<MemoryStore>,
    state: Mutex<State>,
}

impl Shared {
    /// No queues, each of which may hold `capacity` messages.
    pub(crate) fn new(options: &ConnectOptions, capacity: usize) -> Self {
        let state = State {
            capacity,
            ..State::default()
        };
        Self {
            clock: options.clock.clone(),
            ids: options.ids.clone(),
            store: Arc::new(MemoryStore::of_broker(options.clock.clone())),
            state: Mutex::new(state),
        }
    }

    /// How the id of a message stands to its dedup window.
    pub(crate) fn standing(&self, ledger: &Text, entry: &Entry) -> Standing {
        if entry.concerns_store() {
            let now = self.clock.monotonic();
            return self.store.book().standing(ledger, entry, now);
        }
        Standing::Unknown
    }

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
    pub(crate) inboxes: Inboxes,
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
