//! How fast handlers may start.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A token bucket over all drivers of a worker. Starts are paid for when they happen, so the bucket
/// can run a little into debt; the average is kept.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Duration,
}

impl Pace {
    pub(super) fn new(per_second: u32, now: Duration) -> Self {
        let per_second = f64::from(per_second);
        let burst = (per_second / 10.0).max(1.0);
        Self {
            per_second,
            burst,
            state: Mutex::new(State {
                tokens: burst,
                at: now,
            }),
        }
    }

    /// How many of `wanted` may start now; where none may, how long to wait for the next.
    pub(super) fn allow(&self, wanted: usize, now: Duration) -> Result<usize, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(state.at).as_secs_f64();
        state.at = now;
        state.tokens = (state.tokens + passed * self.per_second).min(self.burst);
        if state.tokens >= 1.0 {
            return Ok(wanted.min(state.tokens as usize));
        }
        // Never zero, also where the last fraction of a token is less than a nanosecond away.
        let wait = Duration::from_secs_f64((1.0 - state.tokens) / self.per_second);
        Err(wait.max(Duration::from_nanos(1)))
    }

    /// Pays for starts.
    pub(super) fn started(&self, starts: usize) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tokens -= starts as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_kept_whatever_the_batches() {
        let pace = Pace::new(100, Duration::ZERO);
        let (mut now, mut started) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            match pace.allow(7, now) {
                Ok(n) => {
                    pace.started(n);
                    started += n;
                }
                Err(wait) => now += wait,
            }
        }
        assert!((1_000..=1_011).contains(&started), "{started}");
    }
}
