//! One partition: its messages in their order, and the one source that reads them.

use std::{
    collections::BTreeMap,
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{ErrorKind, Receipt, Text, chaos::Flaw};

use crate::{delay::Delayed, entry::Entry};

/// One physical queue of a queue with sessions.
///
/// A message keeps its place until it is settled for good. A source goes through the slots once, from
/// the first to the last; what is given back or lost waits for the next source, which begins at the
/// first again. So the order is that of publishing, whatever happened.
#[derive(Debug)]
pub(crate) struct Partition {
    /// The name by which a store tells it from others.
    pub(crate) scope: Text,
    slots: BTreeMap<u64, Slot>,
    last: u64,
    delayed: Delayed,
    /// The source that reads it now; others have lost it and stay until they are dropped.
    reading: Option<u64>,
    readers: BTreeMap<u64, Reader>,
}

/// A message, and whether it is out.
#[derive(Debug)]
struct Slot {
    entry: Entry,
    out: Option<Out>,
}

#[derive(Debug)]
struct Out {
    serial: u64,
    /// The number of its latest noted start, 0 where none was.
    noted: u32,
}

/// A source as the partition sees it.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The transport it belongs to.
    client: u64,
    prefetch: usize,
    /// From how many returns on a message runs alone.
    alone: u32,
    /// The last place it was given.
    reached: u64,
    out: usize,
    serial: u64,
    stopped: bool,
    ended: Option<ErrorKind>,
    lost: Vec<Receipt>,
    waiting: Option<Waker>,
    losing: Option<Waker>,
}

impl Reader {
    /// A source that has read nothing.
    pub(crate) fn new(client: u64, prefetch: usize, alone: u32) -> Self {
        Self {
            client,
            prefetch,
            alone: alone.max(1),
            reached: 0,
            out: 0,
            serial: 0,
            stopped: false,
            ended: None,
            lost: Vec::new(),
            waiting: None,
            losing: None,
        }
    }
}

/// A message handed out.
pub(crate) struct Handed<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) tag: [u64; 2],
    pub(crate) alone: bool,
}

impl Partition {
    /// A partition without messages.
    pub(crate) fn new(scope: Text) -> Self {
        Self {
            scope,
            slots: BTreeMap::new(),
            last: 0,
            delayed: Delayed::default(),
            reading: None,
            readers: BTreeMap::new(),
        }
    }

    /// Ready, in flight and delayed.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let out = self.readers.values().map(|reader| reader.out).sum();
        (self.slots.len() - out, out, self.delayed.len())
    }

    /// Sources that take from it.
    pub(crate) fn consumers(&self) -> usize {
        let takes = |reader: &&Reader| !reader.stopped && reader.ended.is_none();
        self.readers.values().filter(takes).count()
    }

    /// Since when the oldest ready message has waited.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let ready = self.slots.values().find(|slot| slot.out.is_none())?;
        Some(ready.entry.since)
    }

    /// Adds a message, at the end from `due` on.
    pub(crate) fn add(
        &mut self,
        entry: Entry,
        now: Duration,
        due: Duration,
        wakers: &mut Vec<Waker>,
    ) {
        self.promote(now);
        if due <= now {
            self.append(entry);
        } else {
            self.delayed.add(due, entry);
        }
        self.wake(wakers);
    }

    /// Appends what is due; answers when the next one will be.
    pub(crate) fn promote(&mut self, now: Duration) -> Option<Duration> {
        while let Some(entry) = self.delayed.due(now) {
            self.append(entry);
        }
        self.delayed.next()
    }

    /// Lets a source read; `false` where another one does.
    pub(crate) fn open(&mut self, scope: u64, reader: Reader) -> bool {
        if self.reading.is_some() && !Flaw::TwoOwners.on() {
            return false;
        }
        self.reading = Some(scope);
        self.readers.insert(scope, reader);
        true
    }

    /// Hands out the next message, where there is one and the source has room.
    ///
    /// # Errors
    /// Why the source has ended.
    pub(crate) fn take(&mut self, scope: u64) -> Result<Option<Handed<'_>>, ErrorKind> {
        let reader = self.readers.get_mut(&scope).ok_or(ErrorKind::Closed)?;
        if let Some(why) = reader.ended {
            return Err(why);
        }
        if reader.out >= reader.prefetch && !Flaw::UnboundedPrefetch.on() {
            return Ok(None);
        }
        let Some((at, slot)) = self.slots.range_mut(reader.reached + 1..).next() else {
            return Ok(None);
        };
        reader.reached = *at;
        reader.out += 1;
        reader.serial += 1;
        let serial = reader.serial;
        slot.out = Some(Out { serial, noted: 0 });
        Ok(Some(Handed {
            alone: slot.entry.suspect && slot.entry.returns >= reader.alone,
            entry: &slot.entry,
            tag: [*at, serial],
        }))
    }

    /// Remembers whom to wake when there is something to take, room for it, or an end.
    pub(crate) fn wait(&mut self, scope: u64, waker: &Waker) {
        if let Some(reader) = self.readers.get_mut(&scope) {
            reader.waiting = Some(waker.clone());
        }
    }

    /// Notes a start; `false` where the lock is gone.
    pub(crate) fn note(&mut self, scope: u64, tag: [u64; 2], attempt: u32) -> bool {
        let out = self.out(scope, tag).and_then(|slot| slot.out.as_mut());
        out.is_some_and(|out| {
            out.noted = out.noted.max(attempt);
            true
        })
    }

    /// The message of a lock the source still holds.
    pub(crate) fn held(&mut self, scope: u64, tag: [u64; 2]) -> Option<&Entry> {
        self.out(scope, tag).map(|slot| &slot.entry)
    }

    /// Takes a message out for good.
    pub(crate) fn remove(
        &mut self,
        scope: u64,
        tag: [u64; 2],
        wakers: &mut Vec<Waker>,
    ) -> Option<Entry> {
        self.out(scope, tag)?;
        let slot = self.slots.remove(&tag[0])?;
        self.make_room(scope, wakers);
        Some(slot.entry)
    }

    /// Leaves a message in its place for the next source, which starts it with this number.
    pub(crate) fn give_back(
        &mut self,
        scope: u64,
        tag: [u64; 2],
        attempt: u32,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let Some(slot) = self.out(scope, tag) else {
            return false;
        };
        slot.out = None;
        slot.entry.attempts = attempt.saturating_sub(1);
        slot.entry.suspect = false;
        self.make_room(scope, wakers);
        true
    }

    /// Ends the source that reads: what it holds comes back as after the death of its process.
    pub(crate) fn lose(&mut self, why: ErrorKind, wakers: &mut Vec<Waker>) {
        let Some(scope) = self.reading.take() else {
            return;
        };
        let Some(reader) = self.readers.get_mut(&scope) else {
            return;
        };
        reader.ended = Some(why);
        reader.out = 0;
        for (at, slot) in self.slots.range_mut(..=reader.reached) {
            if let Some(out) = slot.out.take() {
                let tag = [*at, out.serial];
                reader.lost.push(Receipt { scope, tag });
                let entry = &mut slot.entry;
                // Its first start is noted by nobody and may have happened; every other was noted.
                entry.attempts = entry.attempts.max(out.noted).max(1);
                entry.returns = entry.returns.saturating_add(1);
                entry.suspect = true;
            }
        }
        wakers.extend(reader.waiting.take());
        if !reader.lost.is_empty() {
            wakers.extend(reader.losing.take());
        }
    }

    /// Ends the source of a transport that was closed.
    pub(crate) fn end(&mut self, client: u64, wakers: &mut Vec<Waker>) {
        let reading = self.reading.and_then(|scope| self.readers.get(&scope));
        if reading.is_some_and(|reader| reader.client == client) {
            self.lose(ErrorKind::Closed, wakers);
        }
    }

    /// Takes nothing more for this source.
    pub(crate) fn stop(&mut self, scope: u64, wakers: &mut Vec<Waker>) {
        if let Some(reader) = self.readers.get_mut(&scope) {
            reader.stopped = true;
            wakers.extend(reader.waiting.take());
        }
    }

    /// Forgets a source that was dropped.
    pub(crate) fn leave(&mut self, scope: u64, wakers: &mut Vec<Waker>) {
        if self.reading == Some(scope) {
            self.lose(ErrorKind::Closed, wakers);
        }
        self.readers.remove(&scope);
    }

    /// The locks this source has lost since the last call.
    pub(crate) fn poll_lost(
        &mut self,
        scope: u64,
        cx: &mut Context<'_>,
        into: &mut Vec<Receipt>,
    ) -> Poll<()> {
        match self.readers.get_mut(&scope) {
            Some(reader) if !reader.lost.is_empty() => {
                into.append(&mut reader.lost);
                Poll::Ready(())
            }
            Some(reader) => {
                reader.losing = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    fn append(&mut self, entry: Entry) {
        self.last += 1;
        self.slots.insert(self.last, Slot { entry, out: None });
    }

    /// The place of a lock that is held.
    fn out(&mut self, scope: u64, tag: [u64; 2]) -> Option<&mut Slot> {
        let reads = self.reading == Some(scope);
        let slot = self.slots.get_mut(&tag[0]).filter(|_| reads)?;
        let held = slot.out.as_ref().is_some_and(|out| out.serial == tag[1]);
        held.then_some(slot)
    }

    fn make_room(&mut self, scope: u64, wakers: &mut Vec<Waker>) {
        if let Some(reader) = self.readers.get_mut(&scope) {
            reader.out -= 1;
            wakers.extend(reader.waiting.take());
        }
    }

    fn wake(&mut self, wakers: &mut Vec<Waker>) {
        let reader = self.reading.and_then(|scope| self.readers.get_mut(&scope));
        wakers.extend(reader.and_then(|reader| reader.waiting.take()));
    }
}
