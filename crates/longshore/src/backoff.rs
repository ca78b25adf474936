//! How long to wait before the next attempt.

use std::time::Duration;

use longshore_core::defaults;

/// How long to wait before the next attempt: doubling from `first` to `longest`, each spread by
/// jitter. A pure function of attempt and message id, so the same failure waits the same time in
/// every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Doubles from `first` to `longest`.
    ///
    /// # Panics
    /// When `first` is zero or above `longest`, or `longest` is above one year.
    #[track_caller]
    pub fn new(first: Duration, longest: Duration) -> Self {
        assert!(
            !first.is_zero() && first <= longest && longest <= defaults::LONGEST_DELAY,
            "a backoff doubles from more than zero to at most one year; got {first:?} to {longest:?}"
        );
        Self { first, longest }
    }

    /// The wait after the failure of this attempt (counted from 1): between 80 % and 100 % of
    /// `first · 2^(attempt − 1)`, at most `longest`.
    pub fn after(&self, attempt: u32, id: &str) -> Duration {
        let doublings = attempt.saturating_sub(1).min(63);
        let whole = self
            .first
            .as_nanos()
            .saturating_mul(1 << doublings)
            .min(self.longest.as_nanos());
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        Duration::from_nanos(whole - (whole / 5_000) * (spread(attempt, id) % 1_001))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: defaults::BACKOFF_FIRST,
            longest: defaults::BACKOFF_LONGEST,
        }
    }
}

/// FNV-1a over the id, then the attempt.
fn spread(attempt: u32, id: &str) -> u64 {
    id.bytes()
        .chain(attempt.to_be_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_is_capped_and_stays_within_the_jitter() {
        let backoff = Backoff::default();
        for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (u32::MAX, 300)] {
            for id in ["a", "b", "0123456789abcdef"] {
                let wait = backoff.after(attempt, id);
                let whole = Duration::from_secs(seconds);
                assert!(
                    wait <= whole && wait >= whole * 4 / 5,
                    "{attempt} {id}: {wait:?}"
                );
                assert_eq!(wait, backoff.after(attempt, id));
            }
        }
    }

    #[test]
    fn different_messages_spread() {
        let backoff = Backoff::default();
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|n| backoff.after(1, &n.to_string())).collect();
        assert!(waits.len() > 60, "{}", waits.len());
    }
}
