//! Settlements that do not happen, or of which nobody hears.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, Verdict};

use super::{
    Fault,
    faults::{unavailable, unknown},
    line::Line,
};

/// Settles the deliveries of one line, or not.
pub(super) struct FaultySettler(pub(super) Arc<Line>);

#[async_trait]
impl Settler for FaultySettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        let shared = &self.0.shared;
        if let Err(error) = shared.connected().await {
            return starts.iter().map(|_| Err(error.again())).collect();
        }
        let mut answers = Vec::with_capacity(starts.len());
        for start in starts {
            answers.push(self.start_one(*start).await);
        }
        answers
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        let shared = &self.0.shared;
        if let Err(error) = shared.connected().await {
            let refused = batch.into_iter().map(|s| Err(s.refused(error.again())));
            return refused.collect();
        }
        if !shared.strikes(Fault::SettleLate) {
            return settle(&self.0, batch).await;
        }
        // Once polled it ends by itself, so it is on its way whoever waits for it.
        let (before, after) = match shared.below(2) {
            0 => (shared.late(), Duration::ZERO),
            _ => (Duration::ZERO, shared.late()),
        };
        let receipts: Vec<Receipt> = batch.iter().map(|s| s.receipt).collect();
        let line = Arc::clone(&self.0);
        let settled = shared.spawn(async move {
            tokio::time::sleep(before).await;
            line.shared.alive().await;
            let answers = settle(&line, batch).await;
            tokio::time::sleep(after).await;
            answers
        });
        let answers = settled.await;
        shared.alive().await;
        // The runtime is ending where the task has not.
        answers.unwrap_or_else(|_| receipts.iter().map(|_| Err(gone())).collect())
    }
}

impl FaultySettler {
    async fn start_one(&self, start: (Receipt, u32)) -> Result<()> {
        let (line, shared) = (&self.0, &self.0.shared);
        if !line.holds(&start.0) {
            return Err(stale());
        }
        if shared.strikes(Fault::StartRefused) {
            return Err(unavailable("start-refused"));
        }
        let mut answers = line.settler().start(&[start]).await;
        let answer = answers.pop().unwrap_or_else(|| Err(unknown("no answer")));
        match answer.is_ok() && shared.strikes(Fault::StartUnanswered) {
            true => Err(unavailable("start-unanswered")),
            false => answer,
        }
    }
}

async fn settle(line: &Arc<Line>, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
    let shared = &line.shared;
    let mut answers = Vec::with_capacity(batch.len());
    let (mut sent, mut places) = (Vec::new(), Vec::new());
    for settlement in batch {
        let refused = if !line.holds(&settlement.receipt) {
            Some(stale())
        } else {
            let refuses = shared.strikes(Fault::SettleRefused);
            refuses.then(|| unavailable("settle-refused"))
        };
        if let Some(error) = refused {
            answers.push(Some(Err(settlement.refused(error))));
            continue;
        }
        let unanswered = shared.strikes(Fault::SettleUnanswered);
        places.push((settlement.receipt, unanswered.then(|| again(&settlement))));
        answers.push(None);
        sent.push(settlement);
    }
    if sent.is_empty() {
        return answers.into_iter().flatten().collect();
    }
    let settled = line.settler().settle(sent).await;
    let mut settled = settled.into_iter().zip(places).map(|(answer, (of, lost))| {
        let over = match &answer {
            Ok(()) => true,
            Err(unsettled) => unsettled.settlement.is_none(),
        };
        if over {
            line.forget(&of);
        }
        match (answer, lost) {
            (Ok(()), Some(settlement)) => Err(settlement.refused(unavailable("settle-unanswered"))),
            (answer, _) => answer,
        }
    });
    let answers = answers.into_iter();
    let answered =
        answers.map(|a| a.unwrap_or_else(|| settled.next().unwrap_or_else(|| Err(gone()))));
    answered.collect()
}

/// The same settlement once more.
fn again(settlement: &Settlement) -> Settlement {
    let (receipt, attempt) = (settlement.receipt, settlement.attempt);
    let mut copy = match (&settlement.verdict, &settlement.envelope) {
        (Verdict::Complete, _) | (_, None) => Settlement::complete(receipt, attempt),
        (verdict, Some(envelope)) => {
            Settlement::new(receipt, attempt, verdict.clone(), envelope.clone())
        }
    };
    copy.verdict = settlement.verdict.clone();
    copy.mark = settlement.mark.clone();
    copy.state = settlement.state.clone();
    copy
}

fn stale() -> Error {
    Error::new(ErrorKind::Stale, "injected: the lock is gone")
}

fn gone() -> Unsettled {
    Unsettled {
        error: stale(),
        settlement: None,
    }
}
