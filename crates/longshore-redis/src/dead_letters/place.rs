//! Which dead letter of which physical queue: what its id says.

use std::fmt;

use longshore_core::{ConnectOptions, Name, Part, Topology};

use crate::{entry::EntryId, names::Keys};

/// A list of dead letters: that of the lanes, or that of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Of the plain queue and its lanes.
    Lanes,
    /// Of one partition.
    Partition {
        /// Partitions of the queue.
        of: u16,
        index: u16,
    },
}

/// One dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LetterId {
    // First: the oldest come first, wherever they are.
    pub(super) entry: EntryId,
    pub(super) place: Place,
}

impl Place {
    pub(super) fn keys(self, options: &ConnectOptions, queue: &Name) -> Keys {
        let topology = Topology::new(queue.clone());
        let part = match self {
            Self::Lanes => Part::Lane(0),
            Self::Partition { of, index } => Part::Partition { index, of },
        };
        Keys::new(&options.key_prefix, &topology.scope(part))
    }
}

impl LetterId {
    /// `1700000000000-0`, or `s16.3/1700000000000-0`.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (place, entry) = match id.split_once('/') {
            None => (Place::Lanes, id),
            Some((part, entry)) => {
                let (of, index) = part.strip_prefix('s')?.split_once('.')?;
                let (of, index): (u16, u16) = (of.parse().ok()?, index.parse().ok()?);
                let there = of.is_power_of_two() && of <= 256 && index < of;
                (there.then_some(Place::Partition { of, index })?, entry)
            }
        };
        let entry = EntryId::parse(entry.as_bytes())?;
        Some(Self { entry, place })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Lanes => write!(f, "{}", self.entry),
            Place::Partition { of, index } => write!(f, "s{of}.{index}/{}", self.entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_its_letter_is() {
        for id in ["17-0", "s16.3/17-1"] {
            let parsed = LetterId::parse(id).expect("an id");
            assert_eq!(parsed.to_string(), id);
        }
        for none in [
            "",
            "17",
            "s16.16/17-1",
            "s3.0/17-1",
            "s512.0/17-1",
            "q/17-1",
            "s16/17-1",
        ] {
            assert_eq!(LetterId::parse(none), None, "{none}");
        }
    }
}
