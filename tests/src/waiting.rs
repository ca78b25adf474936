//! Waiting for a condition, with a limit that says what was waited for.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Looks every 50 ms until `look` answers something.
///
/// # Panics
/// When it has not after `limit`.
#[track_caller]
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                begun.elapsed() < limit,
                "{caller}: {what}: not within {limit:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
