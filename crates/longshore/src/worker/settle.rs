//! The only place where deliveries are settled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use longshore_core::{
    ErrorKind, Outgoing, Receipt, Settlement, Verdict,
    chaos::{CrashPoint, Flaw},
};

use super::{
    SharedRef,
    bookkeeping::Bookkeeping,
    desk::{Desk, Settled},
};
use crate::{Fault, answer::Answer};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Settles a batch, and writes down what becomes of ids and sessions.
pub(super) async fn settle(shared: SharedRef, desk: Arc<Desk>, batch: Vec<Settlement>) {
    CrashPoint::SettleDecided.reached();
    if Flaw::NextBeforeSettled.on() {
        for settlement in &batch {
            desk.tell(settlement.receipt, Settled::Confirmed);
        }
    }
    let mut books = Bookkeeping::of(&shared, &desk, batch);
    let ready = std::mem::take(&mut books.ready);
    let mut pending = std::mem::take(&mut books.pending);
    if pending.is_empty() {
        settle_all(&shared, &desk, ready).await;
    } else {
        // What waits for the store holds back nothing else.
        let written = async {
            for lost in books.write_first(&shared).await {
                pending.retain(|settlement| settlement.receipt != lost);
                shared.work.stale.increment(1);
                shared.dedup.forget(&lost);
                desk.tell(lost, Settled::Stale);
                shared.intake.done(&desk, 1);
            }
            CrashPoint::BooksWritten.reached();
            settle_all(&shared, &desk, pending).await;
        };
        tokio::join!(settle_all(&shared, &desk, ready), written);
    }
    books.write_last(&shared).await;
}

/// The one call of [`Settler::settle`](longshore_core::Settler::settle).
///
/// What the broker could not do is tried again for as long as the lock is held: until then nobody
/// else can have the message, and giving up would leave it hidden.
async fn settle_all(shared: &SharedRef, desk: &Arc<Desk>, mut batch: Vec<Settlement>) {
    let mut pause = FIRST_PAUSE;
    let clock = Arc::clone(shared.client.clock());
    let work = &shared.work;
    let (mut faults, mut told) = (faults(&batch), Vec::new());
    while !batch.is_empty() {
        let verdicts: Vec<(Receipt, Verdict)> = batch
            .iter()
            .map(|s| (s.receipt, s.verdict.clone()))
            .collect();
        let begun = clock.monotonic();
        let answers = desk.settler.settle(batch).await;
        work.settle.record(clock.monotonic().saturating_sub(begun));
        let asked = verdicts.len();
        let (mut again, mut completed) = (Vec::new(), 0);
        for ((receipt, verdict), answer) in verdicts.iter().zip(answers) {
            let refused = match answer {
                Ok(()) => {
                    CrashPoint::Settled.reached();
                    match verdict {
                        Verdict::Complete => completed += 1,
                        verdict => work.settled(verdict).increment(1),
                    }
                    told.extend(faults.remove(receipt));
                    shared.dedup.forget(receipt);
                    desk.tell(*receipt, Settled::Confirmed);
                    continue;
                }
                Err(refused) => refused,
            };
            if refused.settlement.is_none() {
                shared.dedup.forget(receipt);
                desk.tell(*receipt, Settled::Stale);
            }
            if refused.error.kind() == ErrorKind::Stale {
                work.stale.increment(1);
                tracing::warn!(queue = %work.queue, "a settlement came too late: the lock was lost");
            } else {
                work.unsettled.increment(1);
                tracing::warn!(queue = %work.queue, error = %refused.error, "a settlement was not confirmed");
            }
            let kept = refused.settlement.map(|settlement| *settlement);
            again.extend(kept.filter(|_| !Flaw::SettlementForgotten.on()));
        }
        work.completed.increment(completed);
        shared.intake.done(desk, asked - again.len());
        for fault in told.drain(..) {
            tell(shared, fault).await;
        }
        batch = again;
        if !batch.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What the requesters of those that become dead letters are told once that has happened.
fn faults(batch: &[Settlement]) -> BTreeMap<Receipt, Outgoing> {
    let fault = |settlement: &Settlement| {
        let Verdict::DeadLetter { reason, .. } = &settlement.verdict else {
            return None;
        };
        let request = settlement.envelope.as_ref()?;
        request.reply_to.as_ref()?;
        let fault = Answer::fault(&Fault::set_aside(reason.as_str()));
        let out = fault.to(request, settlement.attempt)?;
        Some((settlement.receipt, out))
    };
    batch.iter().filter_map(fault).collect()
}

/// Once: whoever asked has a time-out, and the message is safe already.
async fn tell(shared: &SharedRef, fault: Outgoing) {
    if let Err(error) = shared.client.answer(fault).await {
        tracing::warn!(queue = %shared.work.queue, %error, "a requester was not told of the dead letter");
    }
}
