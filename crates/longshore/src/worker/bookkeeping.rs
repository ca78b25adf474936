//! What the store is told about settlements, and when.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    MarkChange, MarkWrite, Reason, Receipt, Settlement, StateWrite, Text, Verdict,
};

use super::{Shared, desk::Desk};
use crate::session::Tenure;

/// How long it is tried to free ids: one that stays taken is free when its lease ends.
const FREEING: Duration = Duration::from_millis(400);

/// A batch in the order its parts have to be told. A transport that applies marks and state with the
/// settlement gets them there. Elsewhere the store is told first what must not be forgotten: a
/// completed message that comes back must find its id done. It is told last that an id is free: a
/// copy must not start before the message is a dead letter.
#[derive(Default)]
pub(super) struct Bookkeeping {
    /// To be settled at once.
    pub(super) ready: Vec<Settlement>,
    /// To be settled once the store knows.
    pub(super) pending: Vec<Settlement>,
    states: Vec<(Receipt, StateWrite)>,
    /// Sessions that become dead letters from here on.
    aside: Vec<(Receipt, Text)>,
    /// The right to those sessions.
    tenure: Option<Arc<Tenure>>,
    /// One part has one scope.
    scope: Text,
    first: Vec<(Receipt, MarkWrite)>,
    last: Vec<MarkWrite>,
}

impl Bookkeeping {
    pub(super) fn of(shared: &Shared, desk: &Desk, batch: Vec<Settlement>) -> Self {
        let mut sorted = Self {
            tenure: desk.tenure.clone(),
            ..Self::default()
        };
        if !shared.keeps_books() {
            sorted.ready = batch;
            return sorted;
        }
        for settlement in batch {
            sorted.sort(shared, settlement);
        }
        sorted
    }

    fn sort(&mut self, shared: &Shared, mut settlement: Settlement) {
        let mark = shared.dedup.mark(&settlement);
        let mut waits = false;
        if let Some(key) = self.sets_aside(shared, &settlement) {
            waits = true;
            self.aside.push((settlement.receipt, key));
        }
        if shared.client.books().atomic {
            settlement.mark = mark.map(|(_, mark)| mark);
        } else {
            if let Some(write) = settlement.state.take() {
                waits = true;
                self.states.push((settlement.receipt, write));
            }
            if let Some((scope, mark)) = mark {
                self.scope = scope;
                if mark.change == MarkChange::Released {
                    self.last.push(mark);
                } else {
                    waits = true;
                    self.first.push((settlement.receipt, mark));
                }
            }
        }
        match waits {
            true => self.pending.push(settlement),
            false => self.ready.push(settlement),
        }
    }

    /// The session that is set aside by this settlement.
    fn sets_aside(&self, shared: &Shared, settlement: &Settlement) -> Option<Text> {
        let Verdict::DeadLetter { reason, .. } = &settlement.verdict else {
            return None;
        };
        let applies = shared.settings.set_aside_sessions
            && self.tenure.is_some()
            && *reason != Reason::SessionSetAside;
        applies.then(|| settlement.envelope.as_ref()?.key.clone())?
    }

    /// Writes what must be known first, for as long as the store takes; answers the locks that turned
    /// out to be lost. State comes before the ids: what is done is not tried again.
    pub(super) async fn write_first(&mut self, shared: &Shared) -> Vec<Receipt> {
        let books = shared.client.books();
        let mut lost = Vec::new();
        if let Some(tenure) = &self.tenure {
            let (scope, token) = (&tenure.scope, Some(tenure.token));
            for (receipt, key) in self.aside.drain(..) {
                let setting = books.insist(|| books.store.set_aside(scope, &key, true, token));
                if setting.await.is_err() {
                    lost.push(receipt);
                }
            }
            for (receipt, write) in self.states.drain(..) {
                let saving = books.insist(|| books.store.save(scope, &write));
                if saving.await.is_err() {
                    lost.push(receipt);
                }
            }
        }
        // What is lost runs again elsewhere, so it is not done.
        self.first.retain(|(receipt, _)| !lost.contains(receipt));
        let marks: Vec<MarkWrite> = self.first.drain(..).map(|(_, mark)| mark).collect();
        if !marks.is_empty() {
            // No write of a mark is stale.
            let writing = books.insist(|| books.store.write(&self.scope, &marks));
            let _ = writing.await;
        }
        lost
    }

    /// Frees ids.
    pub(super) async fn write_last(&self, shared: &Shared) {
        if self.last.is_empty() {
            return;
        }
        let books = shared.client.books();
        let freeing = books.insist(|| books.store.write(&self.scope, &self.last));
        let _ = tokio::time::timeout(FREEING, freeing).await;
    }
}
