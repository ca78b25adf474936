//! One broker, and everything that happens around it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use longshore::{Client, ConnectOptions, Declare, Limits, Queue, SeededIds};
use longshore_core::{Store, Transport};
use longshore_memory::{MemoryBroker, MemoryStore};
use longshore_testing::{
    faulty::{Faults, Faulty, Plan},
    history::Event,
};

use crate::{
    catalogue::Catalogue,
    clock::SimulatedClock,
    diary::Diary,
    items::LANES,
    scenario::{Kind, Scenario, Shape},
    witness::Witness,
};

/// The number of the first worker; those of publishers are larger.
pub(crate) const FIRST_WORKER: u32 = 1;
pub(crate) const FIRST_PUBLISHER: u32 = 1_000;
pub(crate) const OPERATOR: u32 = 999;

/// One broker, and everything that happens around it.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) diary: Diary,
    pub(crate) catalogue: Catalogue,
    pub(crate) witness: Witness,
    pub(crate) queues: Vec<Queue>,
    options: ConnectOptions,
    broker: MemoryBroker,
    store: Option<Arc<dyn Store>>,
    /// Nothing ever happens to this one.
    raw: Arc<dyn Transport>,
    pub(crate) observer: Client,
    faults: Mutex<Vec<Faults>>,
    workers: AtomicU32,
    healed: AtomicBool,
}

impl World {
    /// The broker and the queues of this scenario. Has to be called inside a runtime with paused time.
    pub(crate) async fn new(scenario: Scenario) -> longshore::Result<Arc<Self>> {
        let mut options = ConnectOptions::default();
        options.clock = Arc::new(SimulatedClock::new());
        options.ids = Arc::new(SeededIds::new(scenario.seed));
        let broker = MemoryBroker::new(&options);
        let raw = broker.open();
        let store = scenario
            .apart
            .then(|| Arc::new(MemoryStore::new(options.clock.clone())) as Arc<dyn Store>);
        let queues: Vec<Queue> = scenario.queues.iter().map(queue).collect();
        let observer = client(&raw, &options);
        for queue in &queues {
            observer.declare(queue).await?;
        }
        Ok(Arc::new(Self {
            diary: Diary::new(),
            catalogue: Catalogue::of(&scenario),
            witness: Witness::default(),
            queues,
            options,
            broker,
            store,
            raw,
            observer,
            faults: Mutex::default(),
            workers: AtomicU32::new(FIRST_WORKER),
            healed: AtomicBool::new(false),
            scenario,
        }))
    }

    /// A process that suffers as the scenario says, until everything is healed.
    pub(crate) fn connect(&self, process: u32) -> (Client, Faults) {
        let seed = self.scenario.seed ^ (u64::from(process) << 40);
        let mut faulty = Faulty::over(self.broker.open(), seed);
        if let Some(store) = &self.store {
            faulty = faulty.with_store(Arc::clone(store));
        }
        let broker = self.broker.clone();
        let (transport, faults) = faulty
            .lock_breaker(move |lock| broker.lose_lock(lock))
            .open();
        faults.set(match self.is_healed() {
            true => Plan::calm(),
            false => self.scenario.plan.clone(),
        });
        let mut all = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(faults.clone());
        (client(&transport, &self.options), faults)
    }

    /// The number of one more worker.
    pub(crate) fn next_worker(&self) -> u32 {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn broker(&self) -> &MemoryBroker {
        &self.broker
    }

    /// Where ids and states are.
    pub(crate) fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.clone().or_else(|| self.raw.store())
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::SeqCst)
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
        self.all_faults().iter().for_each(Faults::heal);
    }

    /// The faults of every process there ever was.
    pub(crate) fn all_faults(&self) -> Vec<Faults> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.clone()
    }

    /// Tells that somebody is treated badly, for so long.
    pub(crate) fn fault(self: &Arc<Self>, name: &'static str, lasts: Duration) {
        let fault = name.to_owned();
        self.diary.add(0, Event::FaultBegins { fault });
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            let fault = name.to_owned();
            world.diary.add(0, Event::FaultEnds { fault });
        });
    }
}

fn client(transport: &Arc<dyn Transport>, options: &ConnectOptions) -> Client {
    let transport = Arc::clone(transport);
    Client::new(transport, options, Declare::Create, Limits::default())
}

fn queue(shape: &Shape) -> Queue {
    let mut queue = Queue::new(shape.name);
    queue = match shape.kind {
        Kind::Plain => queue,
        Kind::Strict | Kind::Weighted => queue.lanes(LANES),
        Kind::Sessions(partitions) => queue.sessions(partitions),
    };
    match shape.window {
        Some(window) => queue.dedup_window(window),
        None => queue,
    }
}
