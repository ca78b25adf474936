//! What one settlement writes besides its outcome, in the same step.

use std::{sync::MutexGuard, time::Duration};

use longshore_core::{Result, Settlement, Text, Verdict};

use crate::{book::Book, entry::Entry, store::MemoryStore};

/// The store, held still from the check of a settlement until it is written, so that what was checked
/// is what happens. Opened only where there is something to write.
pub(crate) struct Page<'a> {
    book: Option<MutexGuard<'a, Book>>,
    ledger: &'a Text,
    now: Duration,
}

impl<'a> Page<'a> {
    /// Checks the dedup mark and the session state of a settlement, and touches nothing.
    pub(crate) fn open(
        store: &'a MemoryStore,
        ledger: &'a Text,
        settlement: &Settlement,
        now: Duration,
    ) -> Result<Self> {
        let writes = settlement.mark.is_some()
            || settlement.state.is_some()
            || matches!(settlement.verdict, Verdict::DeadLetter { .. });
        let mut book = writes.then(|| store.book());
        if let Some(book) = &mut book {
            book.can_write(ledger, settlement, now)?;
        }
        Ok(Self { book, ledger, now })
    }

    /// Writes them, for the message that is settled.
    pub(crate) fn write(self, entry: &Entry, settlement: &Settlement) {
        if let Some(mut book) = self.book {
            book.write(self.ledger, entry, settlement, self.now);
        }
    }
}
