//! Settles the deliveries of one source.

use std::{sync::Arc, task::Waker, time::Duration};

use async_trait::async_trait;
use longshore_core::{
    Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, Verdict, chaos::Flaw,
};

use crate::{
    delay::delay_is_possible,
    page::Page,
    place::{Origin, Place},
    state::{Shared, State},
};

/// Settles straight in the shared state, a batch in one step.
pub(crate) struct MemorySettler {
    shared: Arc<Shared>,
    place: Place,
}

impl MemorySettler {
    /// The settler of the source that stands there.
    pub(crate) fn new(shared: Arc<Shared>, place: Place) -> Self {
        Self { shared, place }
    }

    fn note(&self, state: &mut State, receipt: &Receipt, attempt: u32) -> Result<()> {
        let place = &self.place;
        let locked = state
            .lane(&place.queue, &place.lane)
            .filter(|_| receipt.scope == place.scope)
            .and_then(|lane| lane.consumers.get_mut(&place.scope))
            .and_then(|consumer| consumer.locks.get_mut(receipt.tag))
            .ok_or_else(stale)?;
        locked.counts = true;
        locked.noted = attempt;
        Ok(())
    }

    fn settle_one(
        &self,
        state: &mut State,
        settlement: Settlement,
        now: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Unsettled> {
        if let Err(error) = possible(&settlement.verdict) {
            return Err(settlement.refused(error));
        }
        let Place {
            queue,
            ledger,
            lane,
            scope,
        } = &self.place;
        let Receipt { scope: of, tag } = settlement.receipt;
        let held = state.queues.get_mut(queue).and_then(|queue| {
            let lane = queue.lanes.get_mut(lane)?;
            let held = of == *scope && lane.is_out(*scope, tag);
            held.then_some((lane, &mut queue.dead, &mut queue.stored))
        });
        let Some((lane_state, dead, stored)) = held else {
            return Err(settlement.refused(stale()));
        };
        let page = match Page::open(&self.shared.store, ledger, &settlement, now) {
            Ok(page) => page,
            Err(error) => return Err(settlement.refused(error)),
        };
        let Some(mut entry) = lane_state.unlock(*scope, tag, wakers) else {
            return Err(settlement.refused(stale()));
        };
        page.write(&entry, &settlement);
        match settlement.verdict {
            Verdict::Retry { after } => {
                entry.attempts = entry.attempts.saturating_add(1).max(settlement.attempt);
                entry.since = now;
                lane_state.add(entry, now, now.saturating_add(after), wakers);
            }
            Verdict::DeadLetter { reason, detail } if !Flaw::DeadLetterLost.on() => {
                let at = self.shared.clock.wall();
                let why = (reason, detail);
                let from = Origin::Lane(lane.clone());
                dead.add(entry, from, why, settlement.attempt, at);
            }
            Verdict::Release { after } if after.is_zero() => {
                lane_state.put_back(*scope, entry, wakers);
            }
            Verdict::Release { after } => {
                entry.since = now;
                lane_state.add(entry, now, now.saturating_add(after), wakers);
            }
            _ => *stored = stored.saturating_sub(1),
        }
        Ok(())
    }
}

/// Refuses what this transport cannot do, before anything is unlocked.
fn possible(verdict: &Verdict) -> Result<()> {
    match verdict {
        Verdict::Complete | Verdict::DeadLetter { .. } => Ok(()),
        Verdict::Retry { after } | Verdict::Release { after } => delay_is_possible(*after),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "the memory transport does not know this verdict",
        )),
    }
}

/// The error for a lock that is gone.
pub(crate) fn stale() -> Error {
    Error::new(
        ErrorKind::Stale,
        "the lock is gone: it was settled already, or its source ended",
    )
}

#[async_trait]
impl Settler for MemorySettler {
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
