//! The history of one simulation, in memory.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_testing::{
    history::{Effect, Event, Record},
    ledger::Ledger,
};
use tokio::time::Instant;

/// The history of one simulation, and the one judge of what took effect in it.
#[derive(Debug)]
pub(crate) struct Diary {
    origin: Instant,
    records: Mutex<Vec<Record>>,
    ledger: Mutex<Ledger>,
}

impl Diary {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            records: Mutex::default(),
            ledger: Mutex::new(Ledger::new()),
        }
    }

    /// Adds what happens now in this process.
    pub(crate) fn add(&self, process: u32, event: Event) {
        let at = self.now();
        self.records().push(Record { at, process, event });
    }

    /// Lets a message take effect, or not.
    pub(crate) fn effect(
        &self,
        process: u32,
        message: u64,
        session: Option<&str>,
        token: u64,
    ) -> Effect {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let effect = ledger.decide(session, token);
        drop(ledger);
        let event = Event::Effect {
            message,
            token,
            effect,
        };
        self.add(process, event);
        effect
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Looks at all of it so far.
    pub(crate) fn each(&self, look: impl FnMut(&Record)) {
        self.records().iter().for_each(look);
    }

    /// All of it so far.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
