//! Why nothing arrives, where the worker itself knows.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use longshore_core::{Part, Text};

/// Why nothing arrives, where the worker itself knows.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<BTreeMap<Of, Text>>);

/// Who has the trouble. What is first is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// There are too many of them.
    DeadLetters,
    /// Taking part in a queue with sessions.
    Membership,
    /// Moving what plain clients publish into the partitions.
    Forwarder,
    /// The source of one part.
    Part(Part),
}

impl Trouble {
    pub(super) fn set(&self, of: Of, trouble: Option<Text>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => troubles.insert(of, trouble),
            None => troubles.remove(&of),
        };
    }

    pub(super) fn first(&self) -> Option<Text> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.values().next().cloned()
    }
}
