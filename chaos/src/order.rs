//! What a run is asked to be.

use std::time::Duration;

use crate::{faults::Fault, plan::On};

/// How old the queues of a run are before the first fault.
pub(crate) const YOUTH: Duration = Duration::from_secs(2);
/// How long is published on after the last fault.
pub(crate) const AFTER: Duration = Duration::from_secs(4);

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// On which broker.
    pub(crate) on: On,
    /// What is broken.
    pub(crate) fault: Fault,
    /// For how many seconds.
    pub(crate) seconds: u64,
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// How many workers there are.
    pub(crate) workers: usize,
}
