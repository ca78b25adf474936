//! The partitions of one queue with sessions, and who owns them.

use std::time::Duration;

use longshore_core::{Name, Part, Stats, Topology};

use crate::{claims::Claims, partition::Partition};

/// The partitions of one count. Another count has partitions and owners of its own.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) claims: Claims,
}

impl Sessions {
    /// So many empty partitions.
    pub(crate) fn new(queue: &Name, of: u16) -> Self {
        let topology = Topology::new(queue.clone());
        let partition = |index| Partition::new(topology.scope(Part::Partition { index, of }));
        Self {
            partitions: (0..of).map(partition).collect(),
            claims: Claims::default(),
        }
    }

    /// One of the partitions.
    pub(crate) fn partition(&mut self, index: u16) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::from(index))
    }

    /// Messages in all partitions.
    pub(crate) fn len(&self) -> usize {
        let counts = self.partitions.iter().map(Partition::counts);
        counts
            .map(|(ready, out, delayed)| ready + out + delayed)
            .sum()
    }

    /// Adds its figures to those of its queue.
    pub(crate) fn count(&mut self, now: Duration, stats: &mut Stats) {
        for partition in &mut self.partitions {
            partition.promote(now);
            let (ready, out, delayed) = partition.counts();
            let add = |figure: &mut Option<u64>, more: usize| {
                *figure = Some(figure.unwrap_or_default() + more as u64);
            };
            stats.ready += ready as u64;
            add(&mut stats.in_flight, out);
            add(&mut stats.delayed, delayed);
            add(&mut stats.consumers, partition.consumers());
            let waited = partition.oldest().map(|since| now.saturating_sub(since));
            stats.oldest = stats.oldest.max(waited);
        }
    }
}
