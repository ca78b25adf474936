//! Arrivals of one lane.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use longshore_core::{
    Delivery, Error, ErrorKind, Limits, Part, Receipt, Result, Source, Standing, Subscribed,
    Subscription, Text,
};
use tokio::time::Sleep;

use crate::{
    entry::Entry,
    lane::{Consumer, Lane},
    locks::Locks,
    place::Place,
    reply,
    settler::MemorySettler,
    state::Shared,
};

/// Takes straight from the shared state whenever it is polled: there is no buffer in between, so
/// what it holds is what was taken. Its locks last as long as it does.
pub(crate) struct MemorySource {
    shared: Arc<Shared>,
    place: Place,
    part: Part,
    limits: Limits,
    stopped: bool,
    /// Rings when the next delayed message is due.
    timer: Option<Pin<Box<Sleep>>>,
}

impl MemorySource {
    /// Declares the queue and joins its lane.
    pub(crate) fn subscribe(
        shared: &Arc<Shared>,
        client: u64,
        subscription: Subscription,
    ) -> Result<Subscribed> {
        let topology = &subscription.topology;
        let lane = match subscription.part {
            Part::Lane(0) => None,
            Part::Lane(number) => Some(topology.lane(number).cloned().ok_or_else(|| {
                let queue = &topology.queue;
                invalid(format!("the queue \"{queue}\" has no lane {number}"))
            })?),
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the memory transport has no partitions",
                ));
            }
        };
        let prefetch = prefetch_of(subscription.prefetch)?;
        let scope = shared.change(|state, _| {
            state.declare(topology, subscription.declare)?;
            let scope = state.serial();
            let consumer = Consumer {
                client,
                prefetch,
                stopped: false,
                suspect_returns: subscription.suspect_returns,
                locks: Locks::default(),
                lost: Vec::new(),
                blocked: None,
                losing: None,
            };
            if let Some(lane) = state.lane(&topology.queue, &lane) {
                lane.consumers.insert(scope, consumer);
            }
            Ok(scope)
        })?;
        let place = Place {
            queue: topology.queue.clone(),
            lane,
            scope,
        };
        let settler = MemorySettler::new(shared.clone(), place.clone());
        let source = Self {
            shared: shared.clone(),
            place,
            part: subscription.part,
            limits: subscription.limits,
            stopped: false,
            timer: None,
        };
        Ok((Box::new(source), Arc::new(settler)))
    }

    /// Moves what is ready, or answers when to look again.
    fn take(&self, cx: &Context<'_>, max: usize, into: &mut Vec<Delivery>) -> Taken {
        self.shared.change(|state, wakers| {
            let Some(lane) = state.lane(&self.place.queue, &self.place.lane) else {
                return Taken::Ended;
            };
            let next = if lane.has_delayed() {
                lane.promote(self.shared.clock.monotonic(), wakers)
            } else {
                None
            };
            let Some(consumer) = lane.consumers.get_mut(&self.place.scope) else {
                return Taken::Ended;
            };
            let room = consumer.room().min(max.max(1));
            if room == 0 {
                consumer.blocked = Some(cx.waker().clone());
                return Taken::Nothing(None);
            }
            let mut taken = 0;
            while taken < room {
                let Some(entry) = lane.take() else { break };
                into.extend(self.deliver(lane, entry));
                taken += 1;
            }
            if taken > 0 {
                return Taken::Some(taken);
            }
            lane.wait(self.place.scope, cx.waker());
            Taken::Nothing(next)
        })
    }

    fn deliver(&self, lane: &mut Lane, entry: Entry) -> Option<Delivery> {
        let scope = self.place.scope;
        let mut envelope = entry.envelope.clone();
        envelope.reply_to = envelope.reply_to.filter(reply::is_address);
        let (attempt, suspect) = (entry.attempts.saturating_add(1), entry.suspect);
        let defect = self.limits.check(&envelope).err().map(Box::new);
        let tag = lane.consumers.get_mut(&scope)?.locks.hold(entry);
        Some(Delivery {
            envelope,
            receipt: Receipt { scope, tag },
            part: self.part,
            attempt,
            suspect,
            alone: false,
            standing: Standing::Unknown,
            defect,
        })
    }

    /// Sets the timer to a due time; `true` where it has passed already.
    fn wait_until(&mut self, due: Duration, cx: &mut Context<'_>) -> bool {
        let left = due.saturating_sub(self.shared.clock.monotonic());
        let at = tokio::time::Instant::now() + left;
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(at);
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(at))),
        };
        timer.as_mut().poll(cx).is_ready()
    }
}

enum Taken {
    Some(usize),
    Nothing(Option<Duration>),
    Ended,
}

impl Source for MemorySource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        loop {
            if self.stopped {
                return Poll::Ready(Ok(0));
            }
            match self.take(cx, max, into) {
                Taken::Some(count) => return Poll::Ready(Ok(count)),
                Taken::Ended => {
                    let closed = Error::new(ErrorKind::Closed, "the client was closed");
                    return Poll::Ready(Err(closed));
                }
                Taken::Nothing(None) => return Poll::Pending,
                Taken::Nothing(Some(due)) => {
                    if !self.wait_until(due, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.shared.change(|state, _| {
            let place = &self.place;
            let consumer = state
                .lane(&place.queue, &place.lane)
                .and_then(|lane| lane.consumers.get_mut(&place.scope));
            match consumer {
                Some(consumer) if !consumer.lost.is_empty() => {
                    into.append(&mut consumer.lost);
                    Poll::Ready(())
                }
                Some(consumer) => {
                    consumer.losing = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        })
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.shared.change(|state, wakers| {
            if let Some(lane) = state.lane(&self.place.queue, &self.place.lane) {
                if let Some(consumer) = lane.consumers.get_mut(&self.place.scope) {
                    consumer.stopped = true;
                    wakers.extend(consumer.blocked.take());
                }
                lane.wake(wakers);
            }
        });
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        let prefetch = prefetch_of(prefetch)?;
        self.shared.change(|state, wakers| {
            if let Some(lane) = state.lane(&self.place.queue, &self.place.lane)
                && let Some(consumer) = lane.consumers.get_mut(&self.place.scope)
            {
                consumer.prefetch = prefetch;
                wakers.extend(consumer.blocked.take());
            }
        });
        Ok(())
    }

    fn trouble(&self) -> Option<Text> {
        None
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.shared.change(|state, wakers| {
            if let Some(lane) = state.lane(&self.place.queue, &self.place.lane) {
                lane.abandon(self.place.scope, wakers);
                if let Some(consumer) = lane.consumers.remove(&self.place.scope) {
                    wakers.extend(consumer.losing);
                }
                lane.wake(wakers);
            }
        });
    }
}

fn prefetch_of(prefetch: u16) -> Result<usize> {
    if prefetch == 0 {
        return Err(invalid(
            "a prefetch of 0 could receive nothing; use 1 to 65,535".into(),
        ));
    }
    Ok(usize::from(prefetch))
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::Invalid, text)
}
