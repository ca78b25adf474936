//! Settles the deliveries of one partition.

use std::{sync::Arc, task::Waker, time::Duration};

use async_trait::async_trait;
use longshore_core::{
    Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, Verdict, chaos::Flaw,
};

use crate::{
    page::Page,
    place::{Origin, PartitionPlace},
    settler::stale,
    state::{Shared, State},
};

/// Settles straight in the shared state, for as long as the ownership lasts.
pub(crate) struct PartitionSettler {
    shared: Arc<Shared>,
    place: PartitionPlace,
}

impl PartitionSettler {
    /// The settler of the source that stands there.
    pub(crate) fn new(shared: Arc<Shared>, place: PartitionPlace) -> Self {
        Self { shared, place }
    }

    fn note(&self, state: &mut State, receipt: &Receipt, attempt: u32) -> Result<()> {
        let PartitionPlace { scope, .. } = self.place;
        let partition = state.partition(&self.place);
        let noted = receipt.scope == scope
            && partition.is_some_and(|partition| partition.note(scope, receipt.tag, attempt));
        if noted { Ok(()) } else { Err(stale()) }
    }

    fn settle_one(
        &self,
        state: &mut State,
        settlement: Settlement,
        now: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Unsettled> {
        let PartitionPlace {
            scope, index, of, ..
        } = self.place;
        let Receipt {
            scope: of_source,
            tag,
        } = settlement.receipt;
        let queue = state.queues.get_mut(&self.place.queue);
        let held = queue.and_then(|queue| {
            let partition = queue.sessions.get_mut(&of)?.partition(index)?;
            let held = of_source == scope && partition.held(scope, tag).is_some();
            held.then_some((partition, &mut queue.dead, &mut queue.stored))
        });
        let Some((partition, dead, stored)) = held else {
            return Err(settlement.refused(stale()));
        };
        if !matches!(
            settlement.verdict,
            Verdict::Complete | Verdict::DeadLetter { .. } | Verdict::Release { .. }
        ) {
            return Err(settlement.refused(in_place()));
        }
        let ledger = &self.place.ledger;
        let page = match Page::open(&self.shared.store, ledger, &settlement, now) {
            Ok(page) => page,
            Err(error) => return Err(settlement.refused(error)),
        };
        let Some(entry) = partition.held(scope, tag) else {
            return Err(settlement.refused(stale()));
        };
        page.write(entry, &settlement);
        match settlement.verdict {
            Verdict::DeadLetter { reason, detail } if !Flaw::DeadLetterLost.on() => {
                if let Some(entry) = partition.remove(scope, tag, wakers) {
                    let (from, at) = (Origin::Partition { index, of }, self.shared.clock.wall());
                    dead.add(entry, from, (reason, detail), settlement.attempt, at);
                }
            }
            // Its place is its turn: there is nothing to wait for but the next owner.
            Verdict::Release { .. } => {
                partition.give_back(scope, tag, settlement.attempt, wakers);
            }
            _ => {
                partition.remove(scope, tag, wakers);
                *stored = stored.saturating_sub(1);
            }
        }
        Ok(())
    }
}

fn in_place() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a message of a session is tried again in its place, never put behind others",
    )
}

#[async_trait]
impl Settler for PartitionSettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        self.shared.change(|state, _| {
            let notes = starts
                .iter()
                .map(|(receipt, attempt)| self.note(state, receipt, *attempt));
            notes.collect()
        })
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        let now = self.shared.clock.monotonic();
        self.shared.change(|state, wakers| {
            batch
                .into_iter()
                .map(|settlement| self.settle_one(state, settlement, now, wakers))
                .collect()
        })
    }
}
