//! What a store knows, and what a settlement writes into it.

use std::time::Duration;

use longshore_core::{
    MarkChange, MarkWrite, Result, Settlement, Standing, Text, Verdict, mark_name,
};

use crate::{entry::Entry, mark::Writer, marks::Marks, session_state::States};

/// How long a message may wait in its queue and still hold its id, where its window is no longer.
const HELD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Dedup marks and session state.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) marks: Marks,
    pub(crate) states: States,
}

impl Book {
    /// An empty one with room for so many ids and sessions.
    pub(crate) fn new(marks: usize, sessions: usize) -> Self {
        Self {
            marks: Marks::new(marks),
            states: States::new(sessions),
        }
    }

    /// Whether the id of a message is known.
    pub(crate) fn knows(&self, scope: &Text, entry: &Entry, now: Duration) -> bool {
        self.marks.knows(scope, &name(entry), now)
    }

    /// Takes the id of a message that is published; `false` where it is known already.
    pub(crate) fn hold(
        &mut self,
        scope: &Text,
        entry: &Entry,
        window: Duration,
        delay: Duration,
        now: Duration,
    ) -> Result<bool> {
        let lasts = delay.saturating_add(window.max(HELD_FOR));
        self.marks
            .hold((scope, &name(entry)), entry.copy, lasts, now)
    }

    /// How the id of a message stands to its window.
    pub(crate) fn standing(&self, scope: &Text, entry: &Entry, now: Duration) -> Standing {
        if entry.exempt {
            return Standing::Exempt;
        }
        let held = entry.copy != 0 && self.marks.holds(scope, &name(entry), entry.copy, now);
        if held {
            Standing::Held
        } else {
            Standing::Unknown
        }
    }

    /// An error where what a settlement writes besides its outcome would be refused.
    pub(crate) fn can_write(
        &mut self,
        scope: &Text,
        settlement: &Settlement,
        now: Duration,
    ) -> Result<()> {
        if let Some(state) = &settlement.state {
            self.states.can_save(scope, state, now)?;
        }
        match &settlement.mark {
            Some(MarkWrite {
                name,
                change: MarkChange::Done { .. },
                ..
            }) => self.marks.has_room(scope, name, now),
            _ => Ok(()),
        }
    }

    /// Writes what a settlement of this message writes besides its outcome. It was checked before in
    /// the same step, so nothing can be refused here. A dead letter releases its id in any case.
    pub(crate) fn write(
        &mut self,
        scope: &Text,
        entry: &Entry,
        settlement: &Settlement,
        now: Duration,
    ) {
        if let Some(state) = &settlement.state {
            let _checked = self.states.save(scope, state, now);
        }
        if let Some(mark) = &settlement.mark {
            let _checked = self.marks.write(scope, mark, entry.writer(), now);
        }
        if matches!(settlement.verdict, Verdict::DeadLetter { .. }) {
            self.let_go(scope, entry, now);
        }
    }

    /// Releases the id of a message where its publish took it and it has held it since.
    pub(crate) fn let_go(&mut self, scope: &Text, entry: &Entry, now: Duration) {
        if entry.copy != 0 {
            self.marks.let_go(scope, &name(entry), entry.copy, now);
        }
    }
}

impl Entry {
    /// Whether the store must be asked how this message stands.
    pub(crate) fn concerns_store(&self) -> bool {
        self.exempt || self.copy != 0
    }

    fn writer(&self) -> Writer {
        if self.exempt {
            Writer::Exempt
        } else {
            Writer::Copy(self.copy)
        }
    }
}

fn name(entry: &Entry) -> Text {
    mark_name(entry.envelope.key.as_deref(), &entry.envelope.id)
}
