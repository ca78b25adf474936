//! One lane: what is ready, what waits for its time, and who consumes it.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
    time::Duration,
};

use longshore_core::{Name, Receipt, chaos::Flaw};

use crate::{
    delay::Delayed,
    entry::Entry,
    locks::{Locked, Locks},
};

/// The normal lane has no name.
pub(crate) type LaneName = Option<Name>;

/// One physical queue.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    ready: VecDeque<Entry>,
    /// Ready, but only one of them is out at a time.
    suspects: VecDeque<Entry>,
    suspect_out: bool,
    delayed: Delayed,
    /// The last position given.
    last: u64,
    pub(crate) consumers: BTreeMap<u64, Consumer>,
    /// Sources that have room and found nothing. All are woken, not one: the one chosen may be busy
    /// elsewhere and not poll again, while another stands idle.
    waiting: Vec<(u64, Waker)>,
}

/// A source as the broker sees it.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// The transport it belongs to.
    pub(crate) client: u64,
    pub(crate) prefetch: usize,
    pub(crate) stopped: bool,
    pub(crate) suspect_returns: u32,
    /// It moves messages on without starting any, and in their order.
    pub(crate) forwards: bool,
    /// It has lost the right to take anything.
    pub(crate) ended: bool,
    pub(crate) locks: Locks,
    pub(crate) lost: Vec<Receipt>,
    /// Waits for room or for the end.
    pub(crate) blocked: Option<Waker>,
    /// Waits for lost locks.
    pub(crate) losing: Option<Waker>,
}

impl Consumer {
    /// How many more it may hold.
    pub(crate) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.locks.len())
    }
}

impl Lane {
    /// Ready, in flight and delayed.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let in_flight = self.consumers.values().map(|c| c.locks.len()).sum();
        let ready = self.ready.len() + self.suspects.len();
        (ready, in_flight, self.delayed.len())
    }

    /// Since when the oldest ready message has waited.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let first = |entries: &VecDeque<Entry>| entries.front().map(|e| e.since);
        first(&self.ready)
            .into_iter()
            .chain(first(&self.suspects))
            .min()
    }

    /// Adds a message that may be taken from `due` on.
    pub(crate) fn add(
        &mut self,
        entry: Entry,
        now: Duration,
        due: Duration,
        wakers: &mut Vec<Waker>,
    ) {
        if due <= now {
            self.append(entry);
            self.wake(wakers);
        } else {
            let sooner = self.delayed.next().is_none_or(|next| due < next);
            self.delayed.add(due, entry);
            if sooner {
                self.wake(wakers);
            }
        }
    }

    /// Puts a message back where it was taken from: for a consumer that keeps the order exactly
    /// there, for others at the head.
    pub(crate) fn put_back(&mut self, scope: u64, entry: Entry, wakers: &mut Vec<Waker>) {
        let forwards = self.consumers.get(&scope).is_some_and(|c| c.forwards);
        let shelf = self.shelf(&entry);
        if forwards {
            let at = shelf.partition_point(|other| other.position < entry.position);
            shelf.insert(at, entry);
        } else {
            shelf.push_front(entry);
        }
        self.wake(wakers);
    }

    fn append(&mut self, mut entry: Entry) {
        self.last += 1;
        entry.position = self.last;
        self.shelf(&entry).push_back(entry);
    }

    /// Makes ready what is due; answers when the next one will be.
    pub(crate) fn promote(&mut self, now: Duration, wakers: &mut Vec<Waker>) -> Option<Duration> {
        while let Some(entry) = self.delayed.due(now) {
            self.append(entry);
            self.wake(wakers);
        }
        self.delayed.next()
    }

    /// Whether anything waits for its time.
    pub(crate) fn has_delayed(&self) -> bool {
        self.delayed.len() > 0
    }

    /// The next message to hand out.
    pub(crate) fn take(&mut self) -> Option<Entry> {
        if !self.suspect_out
            && let Some(entry) = self.suspects.pop_front()
        {
            self.suspect_out = true;
            return Some(entry);
        }
        self.ready.pop_front()
    }

    /// Whether a consumer still holds this lock.
    pub(crate) fn is_out(&mut self, scope: u64, tag: [u64; 2]) -> bool {
        let consumer = self.consumers.get_mut(&scope);
        consumer.is_some_and(|consumer| consumer.locks.get_mut(tag).is_some())
    }

    /// Unlocks one delivery of a consumer, which gains room by it.
    pub(crate) fn unlock(
        &mut self,
        scope: u64,
        tag: [u64; 2],
        wakers: &mut Vec<Waker>,
    ) -> Option<Entry> {
        let consumer = self.consumers.get_mut(&scope)?;
        let entry = consumer.locks.release(tag)?;
        wakers.extend(consumer.blocked.take());
        if entry.suspect {
            self.suspect_out = false;
            self.wake(wakers);
        }
        Some(entry)
    }

    /// Takes everything from a consumer as if its process had died.
    pub(crate) fn abandon(&mut self, scope: u64, wakers: &mut Vec<Waker>) -> Vec<Receipt> {
        let Some(consumer) = self.consumers.get_mut(&scope) else {
            return Vec::new();
        };
        let threshold = consumer.suspect_returns.max(1);
        let forwards = consumer.forwards;
        wakers.extend(consumer.blocked.take());
        let held = consumer.locks.release_all();
        let mut receipts = Vec::with_capacity(held.len());
        for (tag, locked) in held {
            receipts.push(Receipt { scope, tag });
            self.come_back(scope, locked, (threshold, forwards), wakers);
        }
        receipts
    }

    /// Takes one delivery from a consumer as if its lock had run out, and tells it; `false` where it
    /// holds no such lock.
    pub(crate) fn lose(&mut self, receipt: Receipt, wakers: &mut Vec<Waker>) -> bool {
        let Receipt { scope, tag } = receipt;
        let Some(consumer) = self.consumers.get_mut(&scope) else {
            return false;
        };
        let as_abandoned = (consumer.suspect_returns.max(1), consumer.forwards);
        let Some(locked) = consumer.locks.take(tag) else {
            return false;
        };
        wakers.extend(consumer.blocked.take());
        self.come_back(scope, locked, as_abandoned, wakers);
        self.report(scope, vec![receipt], wakers);
        true
    }

    /// A delivery whose lock is gone is there for others again.
    fn come_back(
        &mut self,
        scope: u64,
        locked: Locked,
        (threshold, forwards): (u32, bool),
        wakers: &mut Vec<Waker>,
    ) {
        let mut entry = locked.entry;
        self.suspect_out &= !entry.suspect;
        if locked.counts && !forwards && !Flaw::AttemptsInMemory.on() {
            entry.attempts = entry.attempts.saturating_add(1).max(locked.noted);
            entry.returns = entry.returns.saturating_add(1);
        }
        entry.suspect |= !forwards && entry.returns >= threshold;
        self.put_back(scope, entry, wakers);
    }

    /// Ends the consumers that forward: the right to it was lost.
    pub(crate) fn end_forwarding(&mut self, wakers: &mut Vec<Waker>) {
        let forwards = self.consumers.iter_mut().filter(|(_, c)| c.forwards);
        let ending = forwards.map(|(scope, consumer)| {
            consumer.ended = true;
            *scope
        });
        for scope in ending.collect::<Vec<_>>() {
            let lost = self.abandon(scope, wakers);
            self.report(scope, lost, wakers);
        }
        self.wake(wakers);
    }

    /// Tells a consumer what it has lost.
    pub(crate) fn report(&mut self, scope: u64, mut lost: Vec<Receipt>, wakers: &mut Vec<Waker>) {
        if let Some(consumer) = self.consumers.get_mut(&scope)
            && !lost.is_empty()
        {
            consumer.lost.append(&mut lost);
            wakers.extend(consumer.losing.take());
        }
    }

    /// Remembers whom to wake when something can be taken.
    pub(crate) fn wait(&mut self, scope: u64, waker: &Waker) {
        match self
            .waiting
            .iter_mut()
            .find(|(waiting, _)| *waiting == scope)
        {
            Some((_, known)) => known.clone_from(waker),
            None => self.waiting.push((scope, waker.clone())),
        }
    }

    /// Wakes everybody who has room and found nothing.
    pub(crate) fn wake(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.waiting.drain(..).map(|(_, waker)| waker));
    }

    fn shelf(&mut self, entry: &Entry) -> &mut VecDeque<Entry> {
        if entry.suspect {
            &mut self.suspects
        } else {
            &mut self.ready
        }
    }
}
