//! What makes one process suffer.

use std::{
    fmt,
    future::{Future, pending},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore_core::{Error, ErrorKind, Ids, Receipt, Result, SeededIds};

use super::{Fault, Plan, connection::Connection};

/// Ends one lock at the broker, as one that ran out would: `false` where it is gone already.
pub(super) type LockBreaker = Arc<dyn Fn(Receipt) -> bool + Send + Sync>;

/// The faults of one process: how often they happen, how often they did, and those of a test's
/// choice. Clones are the same.
///
/// Everything here has to be called inside the tokio runtime of the transport.
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

/// What all parts of one faulty transport share.
pub(super) struct Shared {
    random: SeededIds,
    plan: Mutex<Plan>,
    counts: [AtomicU64; Fault::COUNT],
    dead: AtomicBool,
    /// Operations of the background that are still to come.
    pending: AtomicUsize,
    pub(super) breaker: Option<LockBreaker>,
    pub(super) connection: Mutex<Connection>,
    me: Weak<Shared>,
}

impl Faults {
    pub(super) fn new(seed: u64, breaker: Option<LockBreaker>) -> Self {
        Self(Arc::new_cyclic(|me| Shared {
            random: SeededIds::new(seed),
            plan: Mutex::new(Plan::calm()),
            counts: [const { AtomicU64::new(0) }; Fault::COUNT],
            dead: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            breaker,
            connection: Mutex::default(),
            me: me.clone(),
        }))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// From now on this happens as often as the plan says.
    pub fn set(&self, plan: Plan) {
        *self.0.plan() = plan;
    }

    /// Nothing goes wrong any more. A lost connection comes back now, and what was late or not heard
    /// of comes within the time of the plan. A process that died stays dead.
    pub fn heal(&self) {
        let Plan { late, outage, .. } = self.0.plan().clone();
        let calm = Plan::calm().late(late.0, late.1);
        self.set(calm.outage(outage.0, outage.1));
        self.0.connection().reconnect();
    }

    /// How often this has happened.
    pub fn count(&self, fault: Fault) -> u64 {
        self.0.counts[fault as usize].load(Ordering::Relaxed)
    }

    /// What is still to come in the background: late publishes and settlements, claims that are free
    /// only after a while, losses not heard of yet.
    pub fn pending(&self) -> usize {
        self.0.pending.load(Ordering::Acquire)
    }

    /// Loses the connection for so long: every lock, ownership and inbox is gone at the broker at
    /// once, and calls answer `Unavailable` until it is back. The process hears of it after `news`; until then
    /// its handlers run on as those of a frozen or cut off machine do.
    pub fn disconnect(&self, outage: Duration, news: Duration) {
        if !self.is_dead() {
            self.0.hit(Fault::Disconnect);
            self.0.disconnect(outage, news);
        }
    }

    /// Loses the lock of one message that is here, by chance; `false` where there is none, or no
    /// [`Faulty::lock_breaker`](super::Faulty::lock_breaker).
    pub fn lose_lock(&self) -> bool {
        let lines = self.0.connection().lines();
        let mut held: Vec<Receipt> = lines.iter().flat_map(|line| line.held()).collect();
        held.sort_unstable();
        let Some(breaker) = self.0.breaker.as_ref().filter(|_| !held.is_empty()) else {
            return false;
        };
        let receipt = held[self.0.below(held.len())];
        let lost = breaker(receipt);
        if lost {
            self.0.hit(Fault::LockLost);
        }
        lost
    }

    /// Loses one of the partitions owned here, by chance, to whoever is quicker; `false` where none is
    /// owned. The process hears of it after `news`.
    pub fn lose_ownership(&self, news: Duration) -> bool {
        let memberships = self.0.connection().memberships();
        let mut owned: Vec<_> = memberships
            .iter()
            .flat_map(|membership| membership.owned().into_iter().map(move |o| (membership, o)))
            .collect();
        if owned.is_empty() {
            return false;
        }
        let (membership, ownership) = owned.swap_remove(self.0.below(owned.len()));
        self.0.hit(Fault::OwnershipLost);
        membership.lose(ownership, news);
        true
    }

    /// Ends the process as `kill -9` would: everything it holds is abandoned at the broker, and none
    /// of its calls is ever answered again. Its handlers run on, which no real one could: a test that
    /// minds has to end them.
    pub fn die(&self) {
        if !self.0.dead.swap(true, Ordering::SeqCst) {
            self.0.hit(Fault::Died);
            self.0.connection().die();
        }
    }

    /// Whether it has died.
    pub fn is_dead(&self) -> bool {
        self.0.is_dead()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("plan", &*self.0.plan())
            .field("dead", &self.is_dead())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Draws whether this fault happens now, and counts it where it does.
    pub(super) fn strikes(&self, fault: Fault) -> bool {
        let rate = self.plan().rate(fault);
        let strikes = rate > 0 && self.below(1000) < usize::from(rate);
        if strikes {
            self.hit(fault);
        }
        strikes
    }

    pub(super) fn hit(&self, fault: Fault) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&self, n: usize) -> usize {
        (self.random.next() % n.max(1) as u128) as usize
    }

    /// How long something late takes.
    pub(super) fn late(&self) -> Duration {
        let late = self.plan().late;
        self.between(late)
    }

    /// How long a connection is lost.
    pub(super) fn outage(&self) -> Duration {
        let outage = self.plan().outage;
        self.between(outage)
    }

    fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        let spread = most.saturating_sub(least).as_millis();
        let more = self.below(usize::try_from(spread).unwrap_or(usize::MAX) + 1);
        least + Duration::from_millis(more as u64)
    }

    /// How long the process does not hear of a loss.
    pub(super) fn news(&self) -> Duration {
        match self.strikes(Fault::NewsLate) {
            true => self.late(),
            false => Duration::ZERO,
        }
    }

    /// Waits for ever where the process is dead.
    pub(super) async fn alive(&self) {
        if self.is_dead() {
            pending::<()>().await;
        }
    }

    /// The same, and an error where the connection is lost.
    pub(super) async fn connected(&self) -> Result<()> {
        self.alive().await;
        match self.connection().is_lost() {
            true => Err(unavailable("the connection is lost")),
            false => Ok(()),
        }
    }

    /// An error where this fault happens now.
    pub(super) async fn refuses(&self, fault: Fault) -> Result<()> {
        self.connected().await?;
        match self.strikes(fault) {
            true => Err(unavailable(fault.name())),
            false => Ok(()),
        }
    }

    /// Does something in the background.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let counted = Pending::of(&self.me);
        tokio::spawn(async move {
            let _counted = counted;
            work.await
        })
    }

    /// Does something in the background after a while, or now.
    pub(super) fn after(&self, wait: Duration, act: impl FnOnce() + Send + 'static) {
        if wait.is_zero() {
            return act();
        }
        self.spawn(async move {
            tokio::time::sleep(wait).await;
            act();
        });
    }

    pub(super) fn disconnect(&self, outage: Duration, news: Duration) {
        let lost = self.connection().disconnect(outage);
        lost.tell(self, news);
        let me = self.me.clone();
        self.after(outage.max(news).max(Duration::from_millis(1)), move || {
            if let Some(shared) = me.upgrade() {
                shared.connection().reconnect_if_due();
            }
        });
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One operation that is still to come.
struct Pending(Weak<Shared>);

impl Pending {
    fn of(shared: &Weak<Shared>) -> Self {
        if let Some(shared) = shared.upgrade() {
            shared.pending.fetch_add(1, Ordering::AcqRel);
        }
        Self(shared.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The error of what did not happen and may be tried again.
pub(super) fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("injected: {why}"))
}

/// The error of what may have happened.
pub(super) fn unknown(why: &str) -> Error {
    Error::new(ErrorKind::Unknown, format!("injected: {why}"))
}
