//! One claim of this process: under which name the server knows its holder, and whether it is
//! still certain.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use longshore_core::{Name, Ownership, Topology, chaos::Flaw};
use tokio_util::task::TaskTracker;

/// A key and its slot.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) slot: u16,
}

/// What ends with the claim it is consumed under.
pub(crate) trait Leased: Send + Sync {
    /// Somebody else may have it by now.
    fn lose(&self);
    /// Whether nobody receives from it any more.
    fn is_left(&self) -> bool;
}

/// Who is told of a loss.
pub(crate) trait Holder: Send + Sync {
    fn lost(&self, ownership: Ownership);
    /// How long a claim lasts has changed.
    fn changed(&self, lock: Duration);
}

/// A claim that was granted.
pub(crate) struct Lease {
    pub(crate) queue: Name,
    /// Partitions of the queue.
    pub(crate) of: u16,
    pub(crate) ownership: Ownership,
    pub(crate) key: Key,
    /// The value of the key, drawn for this claim alone.
    pub(crate) owner: String,
    /// What reads under it.
    pub(crate) tasks: TaskTracker,
    holder: Weak<dyn Holder>,
    state: Mutex<State>,
}

struct State {
    /// How long it lasts without renewal.
    lock: Duration,
    /// Until this monotonic time nobody else can have it.
    certain_until: Duration,
    /// The lock of the last renewal.
    renewed_for: Duration,
    over: bool,
    consumed: Option<Weak<dyn Leased>>,
    subscriptions: u32,
}

impl Lease {
    /// `sent` is when the command that took it was sent: counted from there it lasts at least as
    /// long on the server's clock.
    pub(crate) fn new(
        (queue, of): (Name, u16),
        ownership: Ownership,
        (key, owner): (Key, String),
        (sent, lock): (Duration, Duration),
        holder: Weak<dyn Holder>,
    ) -> Self {
        Self {
            queue,
            of,
            ownership,
            key,
            owner,
            tasks: TaskTracker::new(),
            holder,
            state: Mutex::new(State {
                lock,
                certain_until: sent + lock,
                renewed_for: lock,
                over: false,
                consumed: None,
                subscriptions: 0,
            }),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    pub(crate) fn lock(&self) -> Duration {
        self.state().lock
    }

    /// Whether a third of it is over, or it lasts for another time than it should.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let state = self.state();
        state.renewed_for != state.lock || state.certain_until <= now + state.lock * 2 / 3
    }

    /// Whether it may soon be somebody else's: before it is, everything under it has to be over.
    pub(crate) fn is_uncertain(&self, now: Duration) -> bool {
        let state = self.state();
        state.certain_until <= now + state.renewed_for.min(state.lock) / 6
    }

    /// A command that renews it is about to be sent, and may shorten it even where no answer comes.
    pub(crate) fn renewing(&self, now: Duration, lock: Duration) {
        let mut state = self.state();
        state.certain_until = state.certain_until.min(now + lock);
    }

    /// It was renewed by a command sent at this time.
    pub(crate) fn renewed(&self, sent: Duration, lock: Duration) {
        let mut state = self.state();
        // A shorter lock ends earlier, whatever the one before it promised.
        state.certain_until = sent + lock;
        state.renewed_for = lock;
    }

    /// A number for each subscription under this claim, from 1; `None` once it is over. From now on
    /// it lasts as long as their locks.
    pub(crate) fn next_subscription(&self, lock: Duration) -> Option<u32> {
        let mut state = self.state();
        let consumed = state.consumed.as_ref().and_then(Weak::upgrade);
        if state.over || consumed.is_some_and(|consumed| !consumed.is_left()) {
            return None;
        }
        state.lock = lock;
        state.subscriptions += 1;
        let number = state.subscriptions;
        drop(state);
        if let Some(holder) = self.holder.upgrade() {
            holder.changed(lock);
        }
        Some(number)
    }

    /// Lets `consumed` end with this claim.
    pub(crate) fn consume(&self, consumed: &Arc<dyn Leased>) {
        let over = {
            let mut state = self.state();
            state.consumed = Some(Arc::downgrade(consumed));
            state.over
        };
        if over {
            consumed.lose();
        }
    }

    /// Ends it together with what is consumed under it, and tells its holder.
    pub(crate) fn lose(&self) {
        if Flaw::LostLockIgnored.on() {
            return;
        }
        if self.end()
            && let Some(holder) = self.holder.upgrade()
        {
            holder.lost(self.ownership);
        }
    }

    /// The same without telling. Whether it was not over yet.
    pub(crate) fn end(&self) -> bool {
        let (before, consumed) = {
            let mut state = self.state();
            (
                std::mem::replace(&mut state.over, true),
                state.consumed.take(),
            )
        };
        if let Some(consumed) = consumed.and_then(|consumed| consumed.upgrade()) {
            consumed.lose();
        }
        !before
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claims of this client, found again by the ownerships made of them.
#[derive(Default)]
pub(crate) struct Leases(Mutex<Vec<Weak<Lease>>>);

impl Leases {
    pub(crate) fn add(&self, lease: &Arc<Lease>) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|lease| lease.strong_count() > 0);
        leases.push(Arc::downgrade(lease));
    }

    /// The claim of this ownership, as long as it lasts.
    pub(crate) fn find(&self, topology: &Topology, ownership: Ownership) -> Option<Arc<Lease>> {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter().filter_map(Weak::upgrade).find(|lease| {
            lease.ownership == ownership
                && lease.queue == topology.queue
                && lease.of == topology.partitions
                && !lease.is_over()
        })
    }
}
