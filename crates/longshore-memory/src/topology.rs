//! Creating and verifying queues.

use longshore_core::{Declare, Error, ErrorKind, Result, Topology};

use crate::{
    queue::Queue,
    state::{State, no_such},
};

/// The largest number of partitions.
const MOST_PARTITIONS: u16 = 256;

impl State {
    /// Creates what is missing of a queue, or refuses it.
    ///
    /// Lanes and bindings are added to what another process declared and never removed, as on the
    /// brokers.
    pub(crate) fn declare(&mut self, topology: &Topology, declare: Declare) -> Result<()> {
        self.partitions_fit(topology)?;
        match declare {
            Declare::Create => {
                let queue = self.queues.entry(topology.queue.clone());
                let queue = queue.or_insert_with(|| Queue::new(&topology.queue));
                queue.deduplicates |= topology.dedup_window.is_some();
                for lane in &topology.lanes {
                    queue.add_lane(lane);
                }
                if topology.partitions > 0 {
                    queue.partition(&topology.queue, topology.partitions);
                }
                for topic in &topology.topics {
                    let bound = self.topics.entry(topic.clone()).or_default();
                    bound.insert(topology.queue.clone());
                }
                Ok(())
            }
            Declare::Verify => self.verify(topology),
        }
    }

    /// Refuses an impossible number of partitions, and another one than that of messages that wait.
    fn partitions_fit(&self, topology: &Topology) -> Result<()> {
        let (name, of) = (&topology.queue, topology.partitions);
        if of == 0 {
            return Ok(());
        }
        if !of.is_power_of_two() || of > MOST_PARTITIONS || !topology.lanes.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a queue with sessions has no lanes and a power of two of partitions up to {MOST_PARTITIONS}, not {of}"
                ),
            ));
        }
        let known = self.queues.get(name).into_iter();
        for (other, sessions) in known.flat_map(|queue| &queue.sessions) {
            let waiting = sessions.len();
            if *other != of && waiting > 0 {
                return Err(Error::new(
                    ErrorKind::TopologyDiffers,
                    format!(
                        "the queue \"{name}\" has {other} partitions that hold {waiting} messages; drain them before it gets {of}"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn verify(&self, topology: &Topology) -> Result<()> {
        let name = &topology.queue;
        let queue = self
            .queues
            .get(name)
            .ok_or_else(|| no_such("queue", name))?;
        for lane in &topology.lanes {
            if !queue.lanes.contains_key(&Some(lane.clone())) {
                return Err(no_such("lane", &format!("{lane}\" of the queue \"{name}")));
            }
        }
        let of = topology.partitions;
        if of > 0 && !queue.sessions.contains_key(&of) {
            let what = format!("{name}\" with {of} partitions");
            return Err(no_such("queue", &what));
        }
        for topic in &topology.topics {
            let bound = self.topics.get(topic);
            if !bound.is_some_and(|queues| queues.contains(name)) {
                return Err(no_such("binding", &format!("{name}\" to \"{topic}")));
            }
        }
        Ok(())
    }
}
