//! What the store is told about settlements, and when.

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{MarkChange, MarkWrite, Receipt, Settlement, StateWrite, Text};

use super::Shared;

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
    states: Vec<(Receipt, Text, StateWrite)>,
    first: Marks,
    last: Marks,
}

/// By scope.
type Marks = BTreeMap<Text, Vec<MarkWrite>>;

impl Bookkeeping {
    pub(super) fn of(shared: &Shared, batch: Vec<Settlement>) -> Self {
        let mut sorted = Self::default();
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
        if shared.client.books().atomic {
            settlement.mark = mark.map(|(_, mark)| mark);
            return self.ready.push(settlement);
        }
        let mut waits = false;
        if let Some(write) = settlement.state.take() {
            waits = true;
            let scope = shared.dedup.scope_of(&write.key);
            self.states.push((settlement.receipt, scope, write));
        }
        match mark {
            None => {}
            Some((scope, mark)) if mark.change == MarkChange::Released => {
                self.last.entry(scope).or_default().push(mark);
            }
            Some((scope, mark)) => {
                waits = true;
                self.first.entry(scope).or_default().push(mark);
            }
        }
        match waits {
            true => self.pending.push(settlement),
            false => self.ready.push(settlement),
        }
    }

    /// Writes what must be known first, for as long as the store takes; answers the locks that turned
    /// out to be lost. State comes before the ids: what is done is not tried again.
    pub(super) async fn write_first(&mut self, shared: &Shared) -> Vec<Receipt> {
        let books = shared.client.books();
        let mut lost = Vec::new();
        for (receipt, scope, write) in self.states.drain(..) {
            if books
                .insist(|| books.store.save(&scope, &write))
                .await
                .is_err()
            {
                lost.push(receipt);
            }
        }
        for (scope, marks) in &self.first {
            // No write of a mark is stale.
            let _ = books.insist(|| books.store.write(scope, marks)).await;
        }
        lost
    }

    /// Frees ids.
    pub(super) async fn write_last(&self, shared: &Shared) {
        let books = shared.client.books();
        let freeing = async {
            for (scope, marks) in &self.last {
                let _ = books.insist(|| books.store.write(scope, marks)).await;
            }
        };
        let _ = tokio::time::timeout(FREEING, freeing).await;
    }
}
