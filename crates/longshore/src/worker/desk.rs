//! Where the deliveries of one source are settled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use longshore_core::Settler;

use crate::session::Tenure;

/// Where the deliveries of one source are settled, and how many still have to be.
pub(super) struct Desk {
    pub(super) settler: Arc<dyn Settler>,
    /// The right to its sessions, where it is a partition.
    pub(super) tenure: Option<Arc<Tenure>>,
    unsettled: AtomicUsize,
    /// Its source takes nothing any more.
    retired: AtomicBool,
}

impl Desk {
    pub(super) fn new(settler: Arc<dyn Settler>) -> Self {
        Self {
            settler,
            tenure: None,
            unsettled: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
        }
    }

    #[expect(dead_code, reason = "called once partitions are granted")]
    /// Of a partition that was granted.
    pub(super) fn owned(settler: Arc<dyn Settler>, tenure: Arc<Tenure>) -> Self {
        Self {
            tenure: Some(tenure),
            ..Self::new(settler)
        }
    }

    /// These many more were taken from the source.
    pub(super) fn took(&self, deliveries: usize) {
        self.unsettled.fetch_add(deliveries, Ordering::AcqRel);
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
