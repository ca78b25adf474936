//! Where the deliveries of one source are settled.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use longshore_core::{Receipt, Settler};
use tokio_util::sync::CancellationToken;

use crate::session::Tenure;

/// Where the deliveries of one source are settled, and how many still have to be.
pub(super) struct Desk {
    pub(super) settler: Arc<dyn Settler>,
    /// The right to its sessions, where it is a partition.
    pub(super) tenure: Option<Arc<Tenure>>,
    /// Cancelled once nothing more of its partition may start here.
    pub(super) closing: CancellationToken,
    told: Option<Arc<Told>>,
    unsettled: AtomicUsize,
    /// Its source takes nothing any more.
    retired: AtomicBool,
}

/// What became of the settlements in the partitions of one driver: the next message of a session
/// waits for that.
#[derive(Default)]
pub(super) struct Told(Mutex<Vec<(Receipt, Settled)>>);

/// What the broker has said to a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Confirmed,
    /// It came too late: the message is somebody else's.
    Stale,
}

impl Desk {
    pub(super) fn new(settler: Arc<dyn Settler>) -> Self {
        Self {
            settler,
            tenure: None,
            closing: CancellationToken::new(),
            told: None,
            unsettled: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Of a partition that was granted.
    pub(super) fn owned(settler: Arc<dyn Settler>, tenure: Arc<Tenure>, told: Arc<Told>) -> Self {
        Self {
            tenure: Some(tenure),
            told: Some(told),
            ..Self::new(settler)
        }
    }

    /// These many more were taken from the source.
    pub(super) fn took(&self, deliveries: usize) {
        self.unsettled.fetch_add(deliveries, Ordering::AcqRel);
    }

    pub(super) fn tell(&self, receipt: Receipt, settled: Settled) {
        if let Some(told) = &self.told {
            told.news().push((receipt, settled));
        }
    }

    /// These many were settled, or their locks were lost. `true` once a retired one has none left.
    pub(super) fn done(&self, deliveries: usize) -> bool {
        let before = self.unsettled.fetch_sub(deliveries, Ordering::AcqRel);
        before == deliveries && self.retired.load(Ordering::Acquire)
    }

    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Told {
    pub(super) fn take(&self) -> Vec<(Receipt, Settled)> {
        std::mem::take(&mut *self.news())
    }

    fn news(&self) -> MutexGuard<'_, Vec<(Receipt, Settled)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
