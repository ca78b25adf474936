//! Where a client keeps dedup marks and session state.

use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use longshore_core::{Clock, ErrorKind, Result, Store, Text, Topology, Transport, printable};
use longshore_memory::MemoryStore;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The stores in this process, by a hash of the broker's URL, for as long as a client has one.
static OF_PROCESS: Mutex<BTreeMap<u64, Weak<MemoryStore>>> = Mutex::new(BTreeMap::new());

/// The store in this process for what one broker hands out. The clock of who comes first is its clock.
pub(crate) fn of_process(broker: &str, clock: &Arc<dyn Clock>) -> Arc<dyn Store> {
    let mut hash = DefaultHasher::new();
    broker.hash(&mut hash);
    let mut stores = OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|_, store| store.strong_count() > 0);
    if let Some(store) = stores.get(&hash.finish()).and_then(Weak::upgrade) {
        return store;
    }
    let store = Arc::new(MemoryStore::new(Arc::clone(clock)));
    stores.insert(hash.finish(), Arc::downgrade(&store));
    store
}

/// The store of a client, and who waits for it.
pub(crate) struct Books {
    pub(crate) store: Arc<dyn Store>,
    /// The transport applies marks and state together with a settlement.
    pub(crate) atomic: bool,
    outage: Mutex<Outage>,
}

/// Calls that have failed and are tried again.
#[derive(Default)]
struct Outage {
    callers: usize,
    why: Text,
}

impl Books {
    /// What the transport keeps itself, or this store.
    pub(crate) fn new(
        transport: &dyn Transport,
        store: Option<Arc<dyn Store>>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let own = transport.store();
        let atomic = own.is_some() && store.is_none() && transport.capabilities().atomic_settle;
        Self {
            store: store
                .or(own)
                .unwrap_or_else(|| Arc::new(MemoryStore::new(Arc::clone(clock)))),
            atomic,
            outage: Mutex::default(),
        }
    }

    /// Asks until there is an answer, and lets it be known while there is none.
    ///
    /// # Errors
    /// `Stale`, which no waiting mends.
    pub(crate) async fn insist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut pause = FIRST_PAUSE;
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.kind() == ErrorKind::Stale => return Err(error),
                Err(error) => error,
            };
            let why = printable(&error.to_string(), 256);
            waiting.get_or_insert_with(|| self.wait()).because(&why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says that ids and sessions of this queue are known to this process alone, where the messages
    /// are not.
    pub(crate) fn warn(&self, transport: &dyn Transport, topology: &Topology) {
        let asked = match (topology.dedup_window, topology.partitions) {
            (Some(_), 0) => "its dedup window",
            (Some(_), _) => "its dedup window and the state of its sessions",
            (None, 0) => return,
            (None, _) => "the state of its sessions",
        };
        let alone = transport.capabilities().durable || transport.system() != "memory";
        if alone && !self.store.shared() {
            tracing::warn!(
                queue = %topology.queue,
                "{asked} is known to this process alone and lost with it; name a store for all with `Connect::store`"
            );
        }
    }

    /// Why somebody waits for the store; `None` while all is well.
    pub(crate) fn trouble(&self) -> Option<Text> {
        let outage = self.outage();
        (outage.callers > 0).then(|| outage.why.clone())
    }

    fn wait(&self) -> Waiting<'_> {
        self.outage().callers += 1;
        Waiting(self)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call that waits for the store.
struct Waiting<'a>(&'a Books);

impl Waiting<'_> {
    fn because(&self, why: &str) {
        let mut outage = self.0.outage();
        let new = format!("the store does not answer: {why}").into();
        if outage.why != new {
            outage.why = new;
            drop(outage);
            tracing::warn!(
                why,
                "the store of dedup marks and session state failed; waiting for it"
            );
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut outage = self.0.outage();
        outage.callers -= 1;
        if outage.callers == 0 {
            outage.why = Text::new();
        }
    }
}
