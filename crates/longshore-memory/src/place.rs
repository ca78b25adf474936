//! Where a message or a source stands among the broker's.

use longshore_core::{Name, Text};

use crate::lane::LaneName;

/// One physical queue of a logical one.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Lane(LaneName),
    Partition { index: u16, of: u16 },
}

impl Origin {
    /// The plain queue.
    pub(crate) const PLAIN: Self = Self::Lane(None);
}

/// A lane with the source that stands there.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) queue: Name,
    /// The scope of its ids and keys in a store.
    pub(crate) ledger: Text,
    pub(crate) lane: LaneName,
    pub(crate) scope: u64,
}

/// A partition with the source that stands there.
#[derive(Clone)]
pub(crate) struct PartitionPlace {
    pub(crate) queue: Name,
    /// The scope of its ids and keys in a store.
    pub(crate) ledger: Text,
    pub(crate) index: u16,
    pub(crate) of: u16,
    pub(crate) scope: u64,
}
