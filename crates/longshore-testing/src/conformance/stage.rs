//! Where a case plays: its transports and its queue names.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore_core::{
    ConnectOptions, Declare, Error, Name, Outgoing, Published, Result, Stats, Text, Topology,
    Transport,
};

use super::{Faults, Suite, must::Must};

/// How long a case waits for what has to come, with room for a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a case listens for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(600);
/// What a bound is stretched by for a slow machine.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// What brokers round times to.
pub(crate) const TICK: Duration = Duration::from_millis(1);

static NAMES: AtomicU64 = AtomicU64::new(0);

/// What a case has at hand.
pub(crate) struct Stage {
    suite: Arc<Suite>,
    run: Text,
    /// The first transport.
    pub(crate) transport: Arc<dyn Transport>,
    opened: Mutex<Vec<Arc<dyn Transport>>>,
}

impl Stage {
    /// Opens the first transport.
    pub(crate) async fn new(suite: Arc<Suite>, run: Text) -> Result<Self> {
        let transport = (suite.connect)(options()).await?;
        Ok(Self {
            suite,
            run,
            opened: Mutex::new(vec![transport.clone()]),
            transport,
        })
    }

    /// Another transport to the same broker, as another process would have.
    pub(crate) async fn open(&self) -> Arc<dyn Transport> {
        self.open_with(options()).await
    }

    /// Another transport with these options.
    pub(crate) async fn open_with(&self, options: ConnectOptions) -> Arc<dyn Transport> {
        let transport = (self.suite.connect)(options).await.must("connecting");
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push(transport.clone());
        transport
    }

    /// A name nobody has had.
    pub(crate) fn name(&self) -> Name {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let run = self.run.get(..12).unwrap_or(&self.run);
        Name::new(format!("conformance.{run}.{number}")).must("a queue name")
    }

    /// A queue that exists, with the normal lane alone.
    pub(crate) async fn queue(&self) -> Topology {
        let topology = Topology::new(self.name());
        self.declare(&topology).await;
        topology
    }

    /// A queue that is old enough for its broker to be killed.
    pub(crate) async fn settled_queue(&self) -> Topology {
        let topology = self.queue().await;
        self.settle().await;
        topology
    }

    /// Waits until the queues that were declared are old enough for their broker to be killed.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(self.suite.settling).await;
    }

    /// A queue bound to these topics.
    pub(crate) async fn bound_to(&self, topics: &[&Name]) -> Topology {
        let mut topology = Topology::new(self.name());
        topology.topics = topics.iter().map(|&name| name.clone()).collect();
        self.declare(&topology).await;
        topology
    }

    /// A queue with sessions.
    pub(crate) async fn sessions(&self, partitions: u16) -> Topology {
        let mut topology = Topology::new(self.name());
        topology.partitions = partitions;
        self.declare(&topology).await;
        topology
    }

    /// A queue with a dedup window.
    pub(crate) async fn deduplicating(&self, window: Duration) -> Topology {
        let mut topology = Topology::new(self.name());
        topology.dedup_window = Some(window);
        self.declare(&topology).await;
        topology
    }

    /// Declares a queue.
    pub(crate) async fn declare(&self, topology: &Topology) {
        let declared = self.transport.declare(topology, Declare::Create).await;
        declared.must("declaring a queue");
    }

    /// Publishes what has to be accepted, all of it.
    pub(crate) async fn publish(&self, batch: Vec<Outgoing>) {
        accepted(&*self.transport, batch).await;
    }

    /// How long locks last.
    pub(crate) fn lock(&self) -> Duration {
        self.suite.lock
    }

    /// Whether a death may leave one more copy of a message.
    pub(crate) fn duplicates(&self) -> bool {
        self.suite.duplicates
    }

    /// What may be done to the broker.
    pub(crate) fn faults(&self) -> &Faults {
        &self.suite.faults
    }

    /// The figures of a queue.
    pub(crate) async fn stats(&self, topology: &Topology) -> Stats {
        let stats = self.transport.admin().stats(&topology.queue).await;
        stats.must("reading the figures of a queue")
    }

    /// Waits until the figures of a queue are as they have to be; brokers may gather them slowly.
    pub(crate) async fn until_stats(
        &self,
        topology: &Topology,
        what: &str,
        is: impl Fn(&Stats) -> bool,
    ) {
        let from = tokio::time::Instant::now();
        loop {
            let stats = self.stats(topology).await;
            if is(&stats) {
                return;
            }
            assert!(from.elapsed() < PATIENCE, "{what}: {stats:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Closes every transport the case has opened.
    pub(crate) async fn strike(&self) {
        let opened = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *opened)
        };
        for transport in opened {
            transport.close(Duration::from_secs(2)).await;
        }
    }
}

/// Publishes what has to be accepted, all of it.
pub(crate) async fn accepted(transport: &dyn Transport, batch: Vec<Outgoing>) {
    let count = batch.len();
    let answers: Vec<Result<Published, Error>> = transport.publish(batch).await;
    assert_eq!(
        answers.len(),
        count,
        "one answer for each message of a batch"
    );
    for answer in answers {
        assert_eq!(answer.must("publishing"), Published::Accepted);
    }
}

/// How the suite connects where a case says nothing else.
pub(crate) fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.name = "longshore-conformance".to_owned();
    options
}
