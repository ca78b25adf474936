//! What one source holds: every unsettled delivery, until when its lock is certain, and how much
//! room is left.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{Delivery, Error, Receipt, Result, Text, chaos::Flaw};
use tokio::sync::Notify;

use crate::entry::EntryId;

/// One unsettled delivery.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) id: EntryId,
    pub(crate) attempt: u32,
    /// Starts noted with the broker when it was taken; what a release goes back to.
    pub(crate) base: u64,
    /// A suspect that must be the only one of its kind here.
    pub(crate) alone: bool,
    /// Until this monotonic time nobody else can have it.
    pub(crate) certain_until: Duration,
    /// Its settlement is under way and will find out itself whether the lock is lost.
    pub(crate) settling: bool,
}

/// An entry that a claim may have given us although its answer never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Starts noted.
    pub(crate) base: u64,
    /// An earlier start may have killed its process.
    pub(crate) suspect: bool,
    /// It may have done so more than once: no other such suspect is taken beside it.
    pub(crate) alone: bool,
    pub(crate) answer_lost: bool,
}

impl Claim {
    /// A message that nobody has started.
    pub(crate) const FRESH: Self = Self {
        base: 0,
        suspect: false,
        alone: false,
        answer_lost: false,
    };
}

/// Shared by the source, its settler, its tasks and the renewal of locks.
pub(crate) struct Table {
    pub(crate) scope: u64,
    inner: Mutex<Inner>,
    /// Room was freed, or the source stops.
    pub(crate) freed: Notify,
    /// A suspect was settled, or the source stops.
    pub(crate) cleared: Notify,
}

pub(crate) struct Inner {
    pub(crate) prefetch: usize,
    pub(crate) reserved: usize,
    pub(crate) held: BTreeMap<u64, Held>,
    by_id: BTreeMap<EntryId, u64>,
    /// Claims under way or with a lost answer.
    pub(crate) claims: BTreeMap<EntryId, Claim>,
    /// Some suspect waits for room: the reader leaves a place.
    pub(crate) suspect_waits: bool,
    /// The server may have put entries into our pending list that we do not know of.
    pub(crate) unseen: bool,
    pub(crate) stopped: bool,
    /// The source was dropped: nobody will take what has arrived.
    pub(crate) abandoned: bool,
    next: u64,
    arrived: VecDeque<Delivery>,
    lost: Vec<Receipt>,
    ended: Option<Error>,
    trouble: Option<Text>,
    receiver: Option<Waker>,
    loss_watcher: Option<Waker>,
}

impl Table {
    pub(crate) fn new(scope: u64, prefetch: u16) -> Self {
        Self {
            scope,
            inner: Mutex::new(Inner {
                prefetch: usize::from(prefetch),
                reserved: 0,
                held: BTreeMap::new(),
                by_id: BTreeMap::new(),
                claims: BTreeMap::new(),
                suspect_waits: false,
                unseen: false,
                stopped: false,
                abandoned: false,
                next: 0,
                arrived: VecDeque::new(),
                lost: Vec::new(),
                ended: None,
                trouble: None,
                receiver: None,
                loss_watcher: None,
            }),
            freed: Notify::new(),
            cleared: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets places aside for a read about to be sent: as many as are free, but the one that a
    /// waiting suspect needs, and none while plenty still waits to be taken.
    pub(crate) fn reserve_for_read(&self) -> usize {
        let mut inner = self.lock();
        let free = match Flaw::UnboundedPrefetch.on() {
            true => inner.prefetch,
            false => inner.free(),
        };
        let free = free.saturating_sub(usize::from(inner.suspect_waits));
        // Full buffers are refilled in quarters: a read per freed place would cost a round trip each.
        if inner.stopped || (free * 4 < inner.prefetch && !inner.arrived.is_empty()) {
            return 0;
        }
        inner.reserved += free;
        free
    }

    /// Sets up to `most` places aside.
    pub(crate) fn reserve(&self, most: usize) -> usize {
        let mut inner = self.lock();
        if inner.stopped {
            return 0;
        }
        let places = inner.free().min(most);
        inner.reserved += places;
        places
    }

    /// Takes `deliveries` in and frees the places reserved for them. A source that has stopped takes
    /// nothing: its holder may have been told already that no more will come.
    #[must_use = "what is refused has to be given back to the broker"]
    pub(crate) fn arrive(&self, reserved: usize, deliveries: Vec<(Held, Delivery)>) -> Vec<Held> {
        let mut inner = self.lock();
        inner.reserved = inner.reserved.saturating_sub(reserved);
        if inner.stopped {
            return deliveries.into_iter().map(|(held, _)| held).collect();
        }
        for (held, _) in &deliveries {
            inner.claims.remove(&held.id);
        }
        for (held, mut delivery) in deliveries {
            if let Some(before) = inner.by_id.get(&held.id).copied() {
                // It came back to us: the earlier lock on it is over.
                inner.lose(self.scope, before);
            }
            let tag = inner.next;
            inner.next += 1;
            delivery.receipt = Receipt {
                scope: self.scope,
                tag: [tag, 0],
            };
            inner.by_id.insert(held.id, tag);
            inner.held.insert(tag, held);
            inner.arrived.push_back(delivery);
        }
        if !inner.arrived.is_empty() {
            wake(&mut inner.receiver);
        }
        self.changed(inner, false);
        Vec::new()
    }

    /// Frees places that were reserved in vain.
    pub(crate) fn unreserve(&self, reserved: usize) {
        let mut inner = self.lock();
        inner.reserved = inner.reserved.saturating_sub(reserved);
        self.changed(inner, false);
    }

    /// Forgets a settled delivery.
    pub(crate) fn remove(&self, tags: &[u64]) {
        let mut alone = false;
        let mut inner = self.lock();
        for tag in tags {
            if let Some(held) = inner.held.remove(tag) {
                alone |= held.alone;
                inner.by_id.remove(&held.id);
            }
        }
        self.changed(inner, alone);
    }

    /// Reports these locks as lost, but those being settled.
    pub(crate) fn lose(&self, tags: &[u64]) {
        let mut alone = false;
        let mut inner = self.lock();
        for tag in tags {
            let Some(held) = inner.held.get(tag).filter(|held| !held.settling) else {
                continue;
            };
            alone |= held.alone;
            inner.lose(self.scope, *tag);
        }
        self.changed(inner, alone);
    }

    /// Ends the source and reports every lock as lost, but those being settled.
    pub(crate) fn lose_all(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        inner.abandoned = true;
        let held = inner.held.iter().filter(|(_, held)| !held.settling);
        let tags: Vec<_> = held.map(|(tag, _)| *tag).collect();
        for tag in tags {
            inner.lose(self.scope, tag);
        }
        drop(inner);
        self.notify_all();
    }

    /// Whether a suspect is held that must be the only one of its kind.
    pub(crate) fn holds_alone(&self) -> bool {
        self.lock().held.values().any(|held| held.alone)
    }

    pub(crate) fn set_suspect_waits(&self, waits: bool) {
        let before = std::mem::replace(&mut self.lock().suspect_waits, waits);
        if before != waits {
            self.freed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.notify_all();
    }

    /// Stops, and gives up what is held: nobody is there to settle it.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        inner.abandoned = true;
        drop(inner);
        self.notify_all();
    }

    pub(crate) fn set_prefetch(&self, prefetch: u16) {
        let mut inner = self.lock();
        inner.prefetch = usize::from(prefetch);
        self.changed(inner, false);
    }

    /// Ends the source with an error, once what has arrived is taken.
    pub(crate) fn end(&self, error: Error) {
        let mut inner = self.lock();
        inner.stopped = true;
        inner.ended.get_or_insert(error);
        drop(inner);
        self.notify_all();
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble.map(Text::from);
    }

    pub(crate) fn trouble(&self) -> Option<Text> {
        self.lock().trouble.clone()
    }

    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let mut inner = self.lock();
        let count = inner.arrived.len().min(max.max(1));
        if count > 0 {
            into.extend(inner.arrived.drain(..count));
            let low = inner.arrived.is_empty();
            drop(inner);
            if low {
                self.freed.notify_one();
            }
            return Poll::Ready(Ok(count));
        }
        if let Some(error) = &inner.ended {
            return Poll::Ready(Err(error.again()));
        }
        if inner.stopped {
            return Poll::Ready(Ok(0));
        }
        register(&mut inner.receiver, cx);
        Poll::Pending
    }

    pub(crate) fn poll_lost(&self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.lost.is_empty() {
            register(&mut inner.loss_watcher, cx);
            return Poll::Pending;
        }
        into.append(&mut inner.lost);
        Poll::Ready(())
    }

    /// Tells the reader, and the search for suspects where it waits for this.
    fn changed(&self, inner: MutexGuard<'_, Inner>, alone: bool) {
        let search = alone || inner.suspect_waits;
        drop(inner);
        self.freed.notify_one();
        if search {
            self.cleared.notify_one();
        }
    }

    fn notify_all(&self) {
        wake(&mut self.lock().receiver);
        self.freed.notify_one();
        self.cleared.notify_one();
    }
}

impl Inner {
    fn free(&self) -> usize {
        self.prefetch
            .saturating_sub(self.held.len() + self.reserved)
    }

    pub(crate) fn knows(&self, id: EntryId) -> bool {
        self.by_id.contains_key(&id)
    }

    fn lose(&mut self, scope: u64, tag: u64) {
        let Some(held) = self.held.remove(&tag) else {
            return;
        };
        self.by_id.remove(&held.id);
        let receipt = Receipt {
            scope,
            tag: [tag, 0],
        };
        let before = self.arrived.len();
        self.arrived.retain(|delivery| delivery.receipt != receipt);
        if self.arrived.len() == before {
            self.lost.push(receipt);
            wake(&mut self.loss_watcher);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests;
