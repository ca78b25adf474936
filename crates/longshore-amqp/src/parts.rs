//! Which physical queues of each queue this client has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use longshore_core::{Name, Part, Topology};

use crate::names;

/// AMQP lists no queues, so what this client never declared, consumed or published to it does not
/// count. The plain queue, which every queue has, is not in here.
#[derive(Default)]
pub(crate) struct Parts {
    seen: Mutex<BTreeMap<Name, BTreeSet<String>>>,
    /// Partitions need not be seen, only their number: it can be found out.
    partitions: Mutex<BTreeMap<Name, u16>>,
}

/// Remembered per queue at most: as many as it can have.
const MOST: usize = 256;

impl Parts {
    pub(crate) fn see(&self, topology: &Topology) {
        if topology.partitions > 0 {
            let mut partitions = self
                .partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            partitions.insert(topology.queue.clone(), topology.partitions);
        }
        for lane in 1..=u8::try_from(topology.lanes.len()).unwrap_or(u8::MAX) {
            if let Ok(name) = names::part(topology, Part::Lane(lane)) {
                self.see_one(&topology.queue, &name);
            }
        }
    }

    pub(crate) fn see_one(&self, queue: &Name, physical: &str) {
        let mut parts = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = parts.get(queue)
            && (seen.contains(physical) || seen.len() >= MOST)
        {
            return;
        }
        let seen = parts.entry(queue.clone()).or_default();
        seen.insert(physical.to_owned());
    }

    pub(crate) fn of(&self, queue: &Name) -> Vec<String> {
        let parts = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(queue).into_iter().flatten().cloned().collect()
    }

    /// How many partitions this client knows the queue to have.
    pub(crate) fn partitions(&self, queue: &Name) -> Option<u16> {
        let partitions = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.get(queue).copied()
    }
}
