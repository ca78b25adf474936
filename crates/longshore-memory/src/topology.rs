//! Creating and verifying queues.

use longshore_core::{Declare, Error, ErrorKind, Result, Topology};

use crate::state::{State, no_such};

impl State {
    /// Creates what is missing of a queue, or refuses it.
    ///
    /// Lanes and bindings are added to what another process declared and never removed, as on the
    /// brokers.
    pub(crate) fn declare(&mut self, topology: &Topology, declare: Declare) -> Result<()> {
        if topology.partitions > 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the memory transport has no partitions; declare the queue without sessions",
            ));
        }
        match declare {
            Declare::Create => {
                let queue = self.queues.entry(topology.queue.clone()).or_default();
                for lane in &topology.lanes {
                    queue.add_lane(lane);
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
        for topic in &topology.topics {
            let bound = self.topics.get(topic);
            if !bound.is_some_and(|queues| queues.contains(name)) {
                return Err(no_such("binding", &format!("{name}\" to \"{topic}")));
            }
        }
        Ok(())
    }
}
