//! The store of one process: dedup marks and session state.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{Clock, Mark, MarkWrite, Result, Session, StateWrite, Store, Take, Text};

use crate::{book::Book, mark::Writer};

/// Dedup marks and session state in the memory of this process: the default store where a broker
/// keeps none, known to one process alone and lost with it.
///
/// It is bounded. Where [`MOST_MARKS`](Self::MOST_MARKS) ids are inside their windows, or
/// [`MOST_SESSIONS`](Self::MOST_SESSIONS) sessions have a state, whatever needs a further one is answered
/// with [`ErrorKind::Full`](longshore_core::ErrorKind::Full). Ids past their windows and cleared sessions make
/// room by themselves. An id of 32 characters takes about 450 bytes (measured with a million), with its
/// reply on top; a session its state twice, as it is and as it was before the last message.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    shared: bool,
}

impl MemoryStore {
    /// Ids that are inside their windows at a time.
    pub const MOST_MARKS: usize = 1_000_000;
    /// Sessions that have a state, or are set aside, at a time.
    pub const MOST_SESSIONS: usize = 1_000_000;

    /// An empty store that measures windows and leases by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_capacity(clock, Self::MOST_MARKS, Self::MOST_SESSIONS)
    }

    /// An empty store with room for so many ids and sessions.
    pub fn with_capacity(clock: Arc<dyn Clock>, marks: usize, sessions: usize) -> Self {
        Self {
            clock,
            book: Mutex::new(Book::new(marks, sessions)),
            shared: false,
        }
    }

    /// The store of a broker in this process. Everybody who can reach the broker shares it, and what
    /// dies with it is of no use without the messages that die with it too.
    pub(crate) fn of_broker(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: true,
            ..Self::new(clock)
        }
    }

    /// What it knows, to be changed in one step. The broker's state is locked before it, never after.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step<T>(&self, step: impl FnOnce(&mut Book, Duration) -> T) -> T {
        let now = self.clock.monotonic();
        step(&mut self.book(), now)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn shared(&self) -> bool {
        self.shared
    }

    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>> {
        self.step(|book, now| {
            let marks = takes.iter().map(|take| book.marks.take(scope, take, now));
            marks.collect()
        })
    }

    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: Duration,
    ) -> Result<Vec<bool>> {
        self.step(|book, now| {
            let renewed = leases
                .iter()
                .map(|(name, owner)| book.marks.renew((scope, name), owner, lease, now));
            Ok(renewed.collect())
        })
    }

    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()> {
        self.step(|book, now| {
            marks
                .iter()
                .try_for_each(|mark| book.marks.write(scope, mark, Writer::Anybody, now))
        })
    }

    async fn grant(&self, scope: &Text, token: u64) -> Result<()> {
        self.step(|book, _| book.states.grant(scope, token));
        Ok(())
    }

    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session> {
        Ok(self.step(|book, _| book.states.load(scope, key, message)))
    }

    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()> {
        self.step(|book, now| book.states.save(scope, write, now))
    }

    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()> {
        self.step(|book, now| book.states.set_aside((scope, key), aside, token, now))
    }
}
