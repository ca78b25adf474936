//! Moves deliveries of an owned queue to the buffer until its channel ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use lapin::{Consumer, message::Delivery as Message};
use longshore_core::{Delivery, Standing, chaos::Flaw, content_id};

use super::Wish;
use crate::{
    convert::{Arrived, arrived, counter},
    fence::is_fence,
    held::{End, Held},
    intake::{Intake, Slot},
    ledger::{Arrival, Judgement},
    plan::Plan,
    pulse::Pulse,
    tenure::Tenure,
};

/// How often a channel is looked at, in case nobody told of its end.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Feed {
    pub(super) plan: Arc<Plan>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) intake: Arc<Intake>,
    pub(super) held: Arc<Held>,
    pub(super) wish: Arc<Wish>,
}

impl Feed {
    /// An end of the channel that nobody asked for ends the ownership too: whoever gets it next, this
    /// process perhaps, begins where the queue does.
    pub(super) async fn run(self, consumer: Consumer) {
        self.deliver(consumer).await;
        let queue = &self.plan.lane;
        tracing::debug!(queue, "the channel of an owned queue ended");
        self.intake.close(&self.held);
        self.intake.drained(Slot::Lane);
        if !self.wish.dropped.load(Ordering::Acquire) {
            self.tenure.lose();
        }
    }

    async fn deliver(&self, mut consumer: Consumer) {
        let mut look = tokio::time::interval(LOOK);
        let mut pulse = Pulse::default();
        loop {
            tokio::select! {
                biased;
                () = self.tenure.until_over() => return,
                message = consumer.next() => {
                    let Some(Ok(first)) = message else { return };
                    pulse.beat();
                    let mut messages = vec![first];
                    let mut ended = false;
                    while let Some(next) = consumer.next().now_or_never() {
                        match next {
                            Some(Ok(message)) => messages.push(message),
                            _ => ended = true,
                        }
                        if ended {
                            break;
                        }
                    }
                    self.arrive(messages);
                    if ended {
                        return;
                    }
                }
                () = pulse.stopped(&self.held) => return,
                _ = look.tick() => {
                    if !self.tenure.session.is_live() || !self.held.is_live() {
                        return;
                    }
                    pulse.look(&self.tenure.session, &self.plan.lane);
                }
            }
        }
    }

    fn arrive(&self, messages: Vec<Message>) {
        let deliveries = messages.into_iter().filter_map(|m| self.delivery(m));
        let deliveries: Vec<_> = deliveries.collect();
        if !self.wish.stopped.load(Ordering::Acquire) {
            self.intake.push(&self.held, deliveries.into_iter());
        }
    }

    fn delivery(&self, message: Message) -> Option<Delivery> {
        let (plan, session) = (&self.plan, &self.tenure.session);
        let (tag, again) = (message.delivery_tag, message.redelivered);
        self.held.arrived(tag);
        let Arrived {
            envelope,
            attempts,
            returns,
            exempt,
            defect,
        } = arrived(
            message.properties,
            message.data,
            session.watch.marker(),
            again.then(|| counter(&session.server())),
            &plan.replies,
            plan.clock.wall(),
        );
        if is_fence(&envelope) {
            self.pass(tag, again);
            return None;
        }
        let judgement = match &self.tenure.book {
            Some(book) => {
                let id = match envelope.id.is_empty() {
                    true => content_id(&envelope),
                    false => envelope.id.clone(),
                };
                let before = attempts;
                book.ledger().arrive(Arrival {
                    tag,
                    id,
                    before,
                    again,
                })
            }
            // A forwarder starts no handler.
            None => Judgement {
                attempt: attempts.saturating_add(1),
                suspect: false,
                returns: 0,
            },
        };
        let alone = plan.suspect_returns > 0 && judgement.returns >= plan.suspect_returns;
        let defect = defect.or_else(|| plan.limits.check(&envelope).err());
        Some(Delivery {
            envelope,
            receipt: self.held.receipt(tag),
            part: plan.part,
            attempt: match Flaw::TakeOverCounts.on() {
                true => judgement.attempt + returns,
                false => judgement.attempt,
            },
            suspect: judgement.suspect,
            alone,
            standing: match exempt {
                true => Standing::Exempt,
                false => Standing::Unknown,
            },
            defect: defect.map(Box::new),
        })
    }

    /// Takes a fence away.
    fn pass(&self, tag: u64, again: bool) {
        if let Some(book) = &self.tenure.book {
            book.ledger().pass(again);
        }
        if self.held.begin(tag).is_ok() {
            // The frame is queued by now; if it is lost, the fence comes once more.
            drop(self.held.end(&[tag], End::Acknowledge));
        }
    }
}
