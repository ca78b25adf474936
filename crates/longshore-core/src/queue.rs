//! What a queue is made of.

use std::time::Duration;

use crate::{Name, Text};

/// One physical queue of a logical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// A priority level: 0 is the normal lane, `n` is `Topology::lanes[n - 1]`.
    Lane(u8),
    /// One of the physical queues that hold sessions. `of` is part of the physical name, so two
    /// counts can never mix.
    Partition {
        /// From 0.
        index: u16,
        /// A power of two up to 256.
        of: u16,
    },
}

/// What a queue is made of: everything a transport needs to declare it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// The logical name.
    pub queue: Name,
    /// Lanes beside the normal one.
    pub lanes: Vec<Name>,
    /// Partitions of a queue with sessions; 0 without. A power of two up to 256.
    pub partitions: u16,
    /// Unsettled deliveries per owned partition, a property of the queue and of no worker: order
    /// survives a crash only while every owner takes at least as many as the one before.
    pub partition_prefetch: u16,
    /// Topics whose messages are copied to this queue.
    pub topics: Vec<Name>,
    /// How long an id that completed is remembered.
    pub dedup_window: Option<Duration>,
}

impl Topology {
    /// A queue with the normal lane alone.
    pub fn new(queue: Name) -> Self {
        Self {
            queue,
            lanes: Vec::new(),
            partitions: 0,
            partition_prefetch: 32,
            topics: Vec::new(),
            dedup_window: None,
        }
    }

    /// The scope in which ids and keys of this part are told apart in a store: `orders` for every
    /// lane, `orders.s16.03` for partition 3 of 16.
    pub fn scope(&self, part: Part) -> Text {
        match part {
            Part::Lane(_) => self.queue.as_str().into(),
            Part::Partition { index, of } => {
                let digits = of.saturating_sub(1).to_string().len();
                format!("{}.s{of}.{index:0digits$}", self.queue).into()
            }
        }
    }

    /// The priority of what lies in this part, whatever a plain client wrote there. In the normal lane
    /// a name that is no lane of this queue stays: it came by a topic.
    pub fn priority_in(&self, part: Part, named: Option<Text>) -> Option<Text> {
        match part {
            Part::Lane(0) => named.filter(|named| self.lanes.iter().all(|lane| **lane != **named)),
            Part::Lane(lane) => self.lane(lane).map(|name| name.as_str().into()),
            Part::Partition { .. } => named,
        }
    }

    /// The name of a lane beside the normal one.
    pub fn lane(&self, lane: u8) -> Option<&Name> {
        self.lanes.get(usize::from(lane).checked_sub(1)?)
    }
}

/// Whether a transport may create what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declare {
    /// Create what is missing; refuse what exists with other arguments.
    #[default]
    Create,
    /// Create nothing, ever; refuse what is missing.
    Verify,
}

/// The partition of a key: the low bits of its 64-bit FNV-1a hash
/// (<http://www.isthe.com/chongo/tech/comp/fnv/>). `partitions` is a power of two.
pub fn partition_of(key: &Text, partitions: u16) -> u16 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = key.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    (hash & u64::from(partitions.saturating_sub(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_in_the_lane_it_lies_in() {
        let mut topology = Topology::new(Name::new("orders").expect("a name"));
        topology.lanes.push(Name::new("high").expect("a name"));
        let partition = Part::Partition { index: 0, of: 1 };
        for (part, named, is) in [
            (Part::Lane(0), None, None),
            (Part::Lane(0), Some("high"), None),
            (Part::Lane(0), Some("higher"), Some("higher")),
            (Part::Lane(1), None, Some("high")),
            (Part::Lane(1), Some("low"), Some("high")),
            (partition, Some("high"), Some("high")),
        ] {
            let found = topology.priority_in(part, named.map(Text::from));
            assert_eq!(found.as_deref(), is, "{part:?} {named:?}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one_and_its_low_bits_choose_the_partition() {
        // FNV-1a test vectors: "" = cbf29ce484222325, "a" = af63dc4c8601ec8c, "foobar" = 85944171f73967e8.
        assert_eq!(partition_of(&"".into(), 256), 0x25);
        assert_eq!(partition_of(&"a".into(), 256), 0x8c);
        assert_eq!(partition_of(&"foobar".into(), 256), 0xe8);
        assert_eq!(partition_of(&"foobar".into(), 16), 0x8);
        assert_eq!(partition_of(&"foobar".into(), 1), 0);
    }
}
