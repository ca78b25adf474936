//! The time of a simulation.

use std::time::{Duration, SystemTime};

use longshore::Clock;
use tokio::time::Instant;

/// When every simulation begins, in seconds since 1970.
const BEGIN: u64 = 1_800_000_000;

/// Tokio's paused time, with a time of day that begins at the same moment in every simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SimulatedClock {
    origin: Instant,
}

impl SimulatedClock {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN) + self.origin.elapsed()
    }
}
