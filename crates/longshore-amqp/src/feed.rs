//! One channel that delivers, made anew whenever it is lost.

mod open;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Consumer, message::Delivery as Message, options::BasicCancelOptions};
use longshore_core::{Error, ErrorKind, Result, Text, chaos::Flaw};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use self::open::Open;
use crate::{
    convert::arrived,
    error::told,
    gate::Turn,
    intake::{Intake, Slot},
    intent::{Intent, stopped},
    link::State,
    plan::Plan,
    publisher::Publisher,
    pulse::Pulse,
    session::SETUP,
    suspects::{Diversion, is_suspect},
};

/// One of the two channels of a subscription.
pub(crate) struct Feed {
    pub(crate) slot: Slot,
    pub(crate) plan: Arc<Plan>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) link: watch::Receiver<State>,
    pub(crate) copies: Arc<Publisher>,
    pub(crate) intent: watch::Receiver<Intent>,
    /// The connection the topology was last declared on.
    pub(crate) declared: u64,
    /// Told what becomes of the first try to consume.
    pub(crate) first: Option<oneshot::Sender<Result<()>>>,
}

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// How often a channel is looked at, in case nobody told of its end.
const LOOK: Duration = Duration::from_secs(1);
/// How often a waiting change of the prefetch is tried.
const RETUNE: Duration = Duration::from_millis(20);
/// Deliveries moved to the buffer under one lock at most.
const GULP: usize = 256;

impl Feed {
    /// Runs until the source is stopped and drained, or dropped.
    pub(crate) async fn run(mut self) {
        let _turn = self.turn().await;
        let mut wait = SHORTEST;
        loop {
            if self.intent.borrow().stop {
                break;
            }
            let opened = tokio::select! {
                biased;
                () = stopped(self.intent.clone()) => break,
                opened = self.open() => opened,
            };
            self.tell(opened.as_ref().err());
            match opened {
                Ok(open) => {
                    wait = SHORTEST;
                    let held = open.held.clone();
                    self.intake.open(self.slot, held.clone());
                    self.deliver(open).await;
                    self.intake.close(&held);
                    drop(held);
                    if Flaw::NoReconnect.on() {
                        return;
                    }
                    let queue = self.queue();
                    tracing::debug!(queue, "the channel ended");
                    if !self.intent.borrow().stop {
                        let why = format!("consuming from \"{queue}\": the channel was lost");
                        self.intake.set_trouble(self.slot, Some(why.into()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Closed => break,
                Err(error) => {
                    let (queue, retry_in) = (self.queue(), wait);
                    tracing::warn!(queue, %error, ?retry_in, "cannot consume");
                    let why = Text::from(error.to_string());
                    self.intake.set_trouble(self.slot, Some(why));
                }
            }
            tokio::select! {
                biased;
                () = stopped(self.intent.clone()) => break,
                () = sleep(wait) => wait = (wait * 2).min(LONGEST),
            }
        }
        self.intake.drained(self.slot);
    }

    /// Waits until the quarantine is this lane's to consume, or the source is stopped.
    async fn turn(&mut self) -> Option<Turn> {
        if self.slot == Slot::Lane {
            return None;
        }
        let gate = self.plan.gate.clone();
        self.tell(None);
        tokio::select! {
            biased;
            () = stopped(self.intent.clone()) => None,
            turn = gate.turn() => Some(turn),
        }
    }

    /// Tells whoever subscribed, if nobody has, and if that has not gone.
    fn tell(&mut self, error: Option<&Error>) {
        if let Some(first) = self.first.take() {
            let error = error.map(|error| error.again());
            let _ = first.send(error.map_or(Ok(()), Err));
        }
    }

    fn queue(&self) -> &str {
        match self.slot {
            Slot::Lane => &self.plan.lane,
            Slot::Quarantine => &self.plan.quarantine,
        }
    }

    /// Moves deliveries to the buffer until the channel is lost.
    async fn deliver(&mut self, mut open: Open) {
        let mut diversions: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut look = tokio::time::interval(LOOK);
        let mut pulse = Pulse::default();
        loop {
            let intent = *self.intent.borrow_and_update();
            let retune = self.wants_retune(&open, intent);
            if (intent.stop && !open.stopping || retune && open.consumer.is_some())
                && !self.cancel(&mut open, intent.stop).await
            {
                return;
            }
            tokio::select! {
                biased;
                message = next(&mut open.consumer), if open.consumer.is_some() => match message {
                    Some(Ok(first)) => {
                        pulse.beat();
                        let mut messages = vec![first];
                        let end = gulp(&mut open.consumer, &mut messages);
                        if !self.has_cell(&mut open).await {
                            return;
                        }
                        self.arrive(&open, messages, &diversions);
                        if end.is_some_and(|end| !self.ended(&mut open, end, retune)) {
                            return;
                        }
                    }
                    Some(Err(_)) if !self.ended(&mut open, End::Failed, retune) => return,
                    None if !self.ended(&mut open, End::Cancelled, retune) => return,
                    Some(Err(_)) | None => {}
                },
                message = next(&mut open.cell), if open.cell.is_some() => match message {
                    Some(Ok(message)) => self.arrive(&open, vec![message], &diversions),
                    Some(Err(_)) | None => return,
                },
                Some(()) = diversions.next() => {}
                _ = self.intent.changed() => {}
                _ = sleep(RETUNE), if open.stopping && open.consumer.is_none() => {
                    // See the crate's note on what crosses a cancellation: it returns with the
                    // channel, and a stop may have a long deadline.
                    let held = &open.held;
                    if diversions.is_empty() && held.unsettled() == 0 && !held.suspect_is_out() {
                        return;
                    }
                }
                _ = sleep(RETUNE), if retune && open.consumer.is_none() && !open.stopping => {
                    if !self.retune(&mut open, intent.prefetch).await {
                        return;
                    }
                }
                () = pulse.stopped(&open.held), if open.consumer.is_some() => return,
                _ = look.tick() => {
                    if !open.session.is_live() || !open.held.is_live() {
                        return;
                    }
                    if open.consumer.is_some() {
                        pulse.look(&open.session, self.queue());
                    }
                }
            }
        }
    }

    /// The consumer brings no more. Whether the channel goes on.
    fn ended(&self, open: &mut Open, end: End, retune: bool) -> bool {
        // Cancelled: by us, or by the broker because the queue is gone.
        if end == End::Failed || !(open.stopping || retune) {
            return false;
        }
        open.consumer = None;
        if open.stopping {
            self.intake.drained(self.slot);
        }
        true
    }

    fn wants_retune(&self, open: &Open, intent: Intent) -> bool {
        self.slot == Slot::Lane
            && !open.stopping
            && (open.consumer.is_none()
                || open.wanted != intent.prefetch
                || open.prefetch != open.wanted && open.held.drained(open.since))
    }

    /// Asks the broker to deliver no more. What is on its way still arrives.
    async fn cancel(&self, open: &mut Open, stop: bool) -> bool {
        open.stopping |= stop;
        let Some(consumer) = &open.consumer else {
            self.intake.drained(self.slot);
            return true;
        };
        let channel = &open.held.channel;
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        match timeout(SETUP, cancelled).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                let error = told("cancelling a consumer", &error);
                tracing::debug!(%error, "the channel ended");
                false
            }
            Err(_) => false,
        }
    }

    /// Consumes again with another prefetch, less what earlier consumers still hold, so that the
    /// sum never exceeds it.
    async fn retune(&self, open: &mut Open, prefetch: u16) -> bool {
        let held = u16::try_from(open.held.unsettled()).unwrap_or(u16::MAX);
        let Some(room @ 1..) = prefetch.checked_sub(held) else {
            return true;
        };
        match self.consume(&open.held, self.queue(), room).await {
            Ok(consumer) => {
                open.consumer = Some(consumer);
                open.wanted = prefetch;
                open.prefetch = room;
                open.since = open.held.next();
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the channel ended");
                false
            }
        }
    }

    fn arrive(
        &self,
        open: &Open,
        messages: Vec<Message>,
        diversions: &FuturesUnordered<BoxFuture<'static, ()>>,
    ) {
        let (held, marker) = (&open.held, open.session.watch.marker());
        let counter = open.counter;
        let now = self.plan.clock.wall();
        let deliveries = messages.into_iter().filter_map(|message| {
            let tag = message.delivery_tag;
            held.arrived(tag);
            let mut arrived = arrived(
                message.properties,
                message.data,
                marker,
                message.redelivered.then_some(counter),
                &self.plan.replies,
                now,
            );
            // Where it lies counts, whatever a plain client wrote or left out: it must come back here.
            if self.slot == Slot::Lane {
                let named = arrived.envelope.priority.take();
                arrived.envelope.priority = self.plan.topology.priority_in(self.plan.part, named);
            }
            if self.slot == Slot::Lane && is_suspect(&self.plan, &arrived) {
                let diversion = Diversion {
                    plan: self.plan.clone(),
                    copies: self.copies.clone(),
                    link: self.link.clone(),
                };
                let moved = diversion.start(held.clone(), tag, &arrived);
                let under_way = self.plan.gate.pass();
                diversions.push(async move { drop((moved.await, under_way)) }.boxed());
                return None;
            }
            if held.is_awaited(tag, &arrived) {
                return None;
            }
            // Started or not: the broker's count tells only where nothing else does.
            let noted = matches!(held.cell.get(), Some(Some(_)));
            if noted {
                arrived.returns = 0;
            }
            let mut delivery =
                arrived.delivery(held.receipt(tag), self.plan.part, &self.plan.limits);
            delivery.suspect = noted;
            Some(delivery)
        });
        self.intake
            .push(held, deliveries.collect::<Vec<_>>().into_iter());
    }
}

/// How a consumer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cancelled,
    Failed,
}

/// Takes what else has arrived by now.
fn gulp(consumer: &mut Option<Consumer>, messages: &mut Vec<Message>) -> Option<End> {
    while messages.len() < GULP {
        match next(consumer).now_or_never()? {
            Some(Ok(message)) => messages.push(message),
            Some(Err(_)) => return Some(End::Failed),
            None => return Some(End::Cancelled),
        }
    }
    None
}

async fn next(consumer: &mut Option<Consumer>) -> Option<lapin::Result<Message>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}
