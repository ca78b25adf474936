//! Settles the deliveries of an owned queue.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::BasicQosOptions;
use longshore_core::{
    Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, Verdict, chaos::Flaw,
};
use tokio::time::timeout;

use crate::{
    held::{End, stale},
    intake::Intake,
    session::SETUP,
    settler::AmqpSettler,
    tenure::Tenure,
};

/// Completes and dead-letters as lanes do. What waits stays where it is.
pub(crate) struct PartitionSettler {
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) lane: AmqpSettler,
}

type Answer = Result<(), Unsettled>;

impl PartitionSettler {
    fn holds(&self, receipt: Receipt) -> Result<()> {
        let [tag, _] = receipt.tag;
        match self.intake.held(receipt.scope) {
            Some(held) if !self.tenure.is_over() && held.is_live() && held.holds(tag) => Ok(()),
            _ => Err(stale()),
        }
    }

    /// Waits until the broker has read what was written to this channel before: it answers nothing to an
    /// acknowledgement, but it reads in order. Without this the next message of a key could start, the
    /// connection break, and the one before it come back after it.
    async fn heard(&self, scope: u64) -> bool {
        let Some(held) = self.intake.held(scope) else {
            return false;
        };
        let prefetch = self.lane.prefetch();
        let asked = held
            .channel
            .basic_qos(prefetch, BasicQosOptions { global: false });
        matches!(timeout(SETUP, asked).await, Ok(Ok(())))
    }

    /// Keeps a delivery for the next owner. Nothing is sent: it returns with the channel.
    fn keep(&self, settlement: Settlement) -> Answer {
        let [tag, _] = settlement.receipt.tag;
        let kept = self.holds(settlement.receipt).and_then(|()| {
            let held = self.intake.held(settlement.receipt.scope);
            let held = held.ok_or_else(stale)?;
            held.begin(tag)?;
            if Flaw::HandOverRequeues.on() {
                drop(held.end(&[tag], End::Requeue));
            }
            Ok(())
        });
        match kept {
            Ok(()) => {
                if let Some(book) = &self.tenure.book {
                    book.ledger().keep(tag, settlement.attempt);
                }
                Ok(())
            }
            Err(error) => Err(settlement.refused(error)),
        }
    }
}

#[async_trait]
impl Settler for PartitionSettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        let held: Vec<Result<()>> = starts.iter().map(|(r, _)| self.holds(*r)).collect();
        let Some(book) = &self.tenure.book else {
            return held;
        };
        let good = starts.iter().zip(&held).filter(|(_, held)| held.is_ok());
        let good: Vec<(u64, u32)> = good.map(|((r, n), _)| (r.tag[0], *n)).collect();
        let mut noted = book.start(&good).await.into_iter();
        let answers = starts.iter().zip(held);
        answers
            .map(|((receipt, _), held)| {
                held?;
                noted.next().unwrap_or_else(|| Err(stale()))?;
                // Writing took time: the partition may be somebody else's by now.
                self.holds(*receipt)
            })
            .collect()
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let (mut sent, mut places) = (Vec::new(), Vec::new());
        for (settlement, place) in batch.into_iter().zip(answers.iter_mut()) {
            match settlement.verdict {
                Verdict::Complete | Verdict::DeadLetter { .. } => {
                    places.push((place, settlement.receipt.tag[0]));
                    sent.push(settlement);
                }
                Verdict::Release { .. } => *place = Some(self.keep(settlement)),
                _ => {
                    let why =
                        "in a session a message waits in its place: there is no later delivery";
                    let error = Error::new(ErrorKind::Unsupported, why);
                    *place = Some(Err(settlement.refused(error)));
                }
            }
        }
        let scope = sent.first().map(|settlement| settlement.receipt.scope);
        let settled = self.lane.settle(sent).await;
        let heard = match scope {
            Some(scope) if !Flaw::SettleUnheard.on() => self.heard(scope).await,
            _ => true,
        };
        for ((place, tag), answer) in places.into_iter().zip(settled) {
            let answer = match heard {
                true => answer,
                false => answer.and(Err(Unsettled {
                    error: stale(),
                    settlement: None,
                })),
            };
            if let (Ok(()), Some(book)) = (&answer, &self.tenure.book) {
                book.ledger().settle(tag);
            }
            *place = Some(answer);
        }
        let unanswered = || Ok(());
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect()
    }
}
