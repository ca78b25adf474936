//! Arrivals of one partition, for whoever owns it.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use longshore_core::{
    Claim, Delivery, Error, ErrorKind, Limits, Ownership, Part, Receipt, Result, Source,
    Subscribed, Subscription, Text,
};

use crate::{
    alarm::Alarm,
    partition::{Handed, Partition, Reader},
    partition_settler::PartitionSettler,
    place::PartitionPlace,
    reply,
    state::{Shared, State, no_such},
};

/// Takes straight from the shared state whenever it is polled. Ends with the ownership it stands for.
pub(crate) struct PartitionSource {
    shared: Arc<Shared>,
    place: PartitionPlace,
    limits: Limits,
    stopped: bool,
    alarm: Alarm,
}

impl PartitionSource {
    /// Reads a partition that is owned.
    pub(crate) fn subscribe(
        shared: &Arc<Shared>,
        client: u64,
        (index, of): (u16, u16),
        subscription: Subscription,
    ) -> Result<Subscribed> {
        let topology = &subscription.topology;
        let prefetch = usize::from(topology.partition_prefetch);
        if topology.partitions != of || prefetch == 0 {
            let (queue, partitions) = (&topology.queue, topology.partitions);
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "partition {index} of {of} of the queue \"{queue}\", which has {partitions}, with a prefetch of {prefetch}"
                ),
            ));
        }
        let owned = subscription
            .ownership
            .filter(|owned| owned.claim == Claim::Partition(index))
            .ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "a partition is read by its owner alone")
            })?;
        let place = shared.change(|state, _| {
            state.declare(topology, subscription.declare)?;
            let place = PartitionPlace {
                queue: topology.queue.clone(),
                ledger: topology.scope(subscription.part),
                index,
                of,
                scope: state.serial(),
            };
            let reader = Reader::new(client, prefetch, subscription.suspect_returns);
            state.read(&place, owned, reader)?;
            Ok::<_, Error>(place)
        })?;
        let settler = PartitionSettler::new(shared.clone(), place.clone());
        let source = Self {
            shared: shared.clone(),
            place,
            limits: subscription.limits,
            stopped: false,
            alarm: Alarm::default(),
        };
        Ok((Box::new(source), Arc::new(settler)))
    }

    /// Moves what is ready, or answers when to look again.
    fn take(
        &self,
        cx: &Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Result<Taken, ErrorKind> {
        self.shared.change(|state, _| {
            let place = &self.place;
            let partition = state.partition(place).ok_or(ErrorKind::Closed)?;
            let next = partition.promote(self.shared.clock.monotonic());
            let mut taken = 0;
            while taken < max.max(1) {
                let Some(handed) = partition.take(place.scope)? else {
                    break;
                };
                into.push(self.deliver(handed));
                taken += 1;
            }
            if taken > 0 {
                return Ok(Taken::Some(taken));
            }
            partition.wait(place.scope, cx.waker());
            Ok(Taken::Nothing(next))
        })
    }

    fn deliver(&self, handed: Handed<'_>) -> Delivery {
        let Handed { entry, tag, alone } = handed;
        let PartitionPlace {
            index, of, scope, ..
        } = self.place;
        let mut envelope = entry.envelope.clone();
        envelope.reply_to = envelope.reply_to.filter(reply::is_address);
        let defect = self.limits.check(&envelope).err().map(Box::new);
        Delivery {
            envelope,
            receipt: Receipt { scope, tag },
            part: Part::Partition { index, of },
            attempt: entry.attempts.saturating_add(1),
            suspect: entry.suspect,
            alone,
            standing: self.shared.standing(&self.place.ledger, entry),
            defect,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Partition, &mut Vec<std::task::Waker>)) {
        self.shared.change(|state, wakers| {
            if let Some(partition) = state.partition(&self.place) {
                change(partition, wakers);
            }
        });
    }
}

enum Taken {
    Some(usize),
    Nothing(Option<Duration>),
}

impl Source for PartitionSource {
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
                Ok(Taken::Some(count)) => return Poll::Ready(Ok(count)),
                Ok(Taken::Nothing(None)) => return Poll::Pending,
                Ok(Taken::Nothing(Some(due))) => {
                    let clock = &*self.shared.clock;
                    if self.alarm.poll(due, clock, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Err(why) => return Poll::Ready(Err(ended(why))),
            }
        }
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.shared
            .change(|state, _| match state.partition(&self.place) {
                Some(partition) => partition.poll_lost(self.place.scope, cx, into),
                None => Poll::Pending,
            })
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.change(|partition, wakers| partition.stop(self.place.scope, wakers));
    }

    fn set_prefetch(&mut self, _: u16) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the prefetch of a partition belongs to its queue; set it where the queue is declared",
        ))
    }

    fn trouble(&self) -> Option<Text> {
        None
    }
}

impl Drop for PartitionSource {
    fn drop(&mut self) {
        self.change(|partition, wakers| partition.leave(self.place.scope, wakers));
    }
}

impl State {
    /// The partition of a source.
    pub(crate) fn partition(&mut self, place: &PartitionPlace) -> Option<&mut Partition> {
        let sessions = self
            .queues
            .get_mut(&place.queue)?
            .sessions
            .get_mut(&place.of)?;
        sessions.partition(place.index)
    }

    fn read(&mut self, place: &PartitionPlace, owned: Ownership, reader: Reader) -> Result<()> {
        let sessions = self.queue(&place.queue)?.sessions.get_mut(&place.of);
        let there = sessions.filter(|s| usize::from(place.index) < s.partitions.len());
        let sessions = there.ok_or_else(|| no_such("such partition of the queue", &place.queue))?;
        if !sessions.claims.is_owned(owned) {
            return Err(ended(ErrorKind::Stale));
        }
        let opened = sessions
            .partition(place.index)
            .is_some_and(|partition| partition.open(place.scope, reader));
        if !opened {
            return Err(Error::new(
                ErrorKind::Invalid,
                "its owner reads this partition already; drop the other source first",
            ));
        }
        Ok(())
    }
}

fn ended(why: ErrorKind) -> Error {
    let text = match why {
        ErrorKind::Stale => "the ownership of the partition was lost; acquire it again",
        _ => "the client was closed",
    };
    Error::new(why, text)
}
