//! The one way to read the time.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Where framework and memory transport read the time, so that a simulation can hold it.
///
/// Waiting is done with tokio's timers, which follow tokio's paused time; an implementation for
/// tests must agree with them.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since an arbitrary origin; never goes back.
    fn monotonic(&self) -> Duration;
    /// Time of day, for what leaves the process: sent-at, expires-at, dead-letter times.
    fn wall(&self) -> SystemTime;
}

/// The machine's clock. Its monotonic side follows tokio's paused time in tests.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    pub fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
