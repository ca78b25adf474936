//! Arrivals of one lane.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use longshore_core::{
    Claim, Delivery, Error, ErrorKind, Limits, Ownership, Part, Receipt, Result, Source,
    Subscribed, Subscription, Text, Topology,
};

use crate::{
    alarm::Alarm,
    entry::Entry,
    lane::{Consumer, Lane},
    locks::Locks,
    partition_source::PartitionSource,
    place::Place,
    reply,
    settler::MemorySettler,
    state::{Shared, State},
};

/// Takes straight from the shared state whenever it is polled: there is no buffer in between, so
/// what it holds is what was taken. Its locks last as long as it does.
pub(crate) struct MemorySource {
    shared: Arc<Shared>,
    place: Place,
    part: Part,
    limits: Limits,
    stopped: bool,
    alarm: Alarm,
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
            Part::Partition { index, of } => {
                return PartitionSource::subscribe(shared, client, (index, of), subscription);
            }
            _ => {
                return Err(invalid(
                    "the memory transport does not know this part".into(),
                ));
            }
        };
        let prefetch = prefetch_of(subscription.prefetch)?;
        let forwards = forwards(&subscription)?;
        let scope = shared.change(|state, _| {
            state.declare(topology, subscription.declare)?;
            if let Some(owned) = forwards {
                state.may_forward(topology, owned)?;
            }
            let scope = state.serial();
            let consumer = Consumer {
                client,
                prefetch,
                stopped: false,
                suspect_returns: subscription.suspect_returns,
                forwards: forwards.is_some(),
                ended: false,
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
            ledger: topology.scope(subscription.part),
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
            alarm: Alarm::default(),
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
            if consumer.ended {
                return Taken::Lost;
            }
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
        let (attempt, suspect) = (entry.attempts.saturating_add(1), entry.is_noted());
        let defect = self.limits.check(&envelope).err().map(Box::new);
        let standing = self.shared.standing(&self.place.ledger, &entry);
        let tag = lane.consumers.get_mut(&scope)?.locks.hold(entry);
        Some(Delivery {
            envelope,
            receipt: Receipt { scope, tag },
            part: self.part,
            attempt,
            suspect,
            alone: false,
            standing,
            defect,
        })
    }
}

enum Taken {
    Some(usize),
    Nothing(Option<Duration>),
    Ended,
    /// The right to forward was lost.
    Lost,
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
                Taken::Lost => return Poll::Ready(Err(lost())),
                Taken::Nothing(None) => return Poll::Pending,
                Taken::Nothing(Some(due)) => {
                    let clock = &*self.shared.clock;
                    if self.alarm.poll(due, clock, cx).is_pending() {
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

/// The right by which the plain queue of a queue with sessions is read.
fn forwards(subscription: &Subscription) -> Result<Option<Ownership>> {
    if subscription.topology.partitions == 0 {
        return Ok(None);
    }
    let owned = subscription.ownership;
    let owned = owned.filter(|owned| owned.claim == Claim::Forwarder);
    owned.map(Some).ok_or_else(|| {
        invalid("the plain queue of a queue with sessions is read by its forwarder alone".into())
    })
}

impl State {
    fn may_forward(&mut self, topology: &Topology, owned: Ownership) -> Result<()> {
        let sessions = &self.queue(&topology.queue)?.sessions;
        let sessions = sessions.get(&topology.partitions);
        if sessions.is_some_and(|sessions| sessions.claims.is_owned(owned)) {
            return Ok(());
        }
        Err(lost())
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Stale,
        "the right to forward was lost; acquire it again",
    )
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
