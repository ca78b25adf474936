//! Where a source stands among the broker's.

use longshore_core::Name;

use crate::lane::LaneName;

/// Where a source stands among the broker's.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) queue: Name,
    pub(crate) lane: LaneName,
    pub(crate) scope: u64,
}
