//! Notices a handler that blocks the thread it runs on.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use longshore_core::Text;

use super::SharedRef;

/// After how long in one poll a driver counts as blocked.
const BLOCKED: Duration = Duration::from_secs(2);

/// Since when each driver has been in the poll it is in, in microseconds on the client's clock; 0 where
/// it is in none.
#[derive(Debug)]
pub(crate) struct Beats(Box<[AtomicU64]>);

impl Beats {
    pub(super) fn new(drivers: usize) -> Self {
        Self((0..drivers).map(|_| AtomicU64::new(0)).collect())
    }

    /// Why a part of the slots stands still, where a handler has not returned for so long.
    pub(super) fn trouble(&self, now: Duration) -> Option<Text> {
        let since = self.0.iter().map(|beat| beat.load(Ordering::Relaxed));
        let longest = since.filter(|since| *since > 0).min()?;
        let blocked = now.saturating_sub(Duration::from_micros(longest));
        (blocked >= BLOCKED).then(|| {
            let seconds = blocked.as_secs();
            format!("a handler has blocked its thread for {seconds} s: register it as blocking")
                .into()
        })
    }
}

/// Runs a driver and notes how long each of its polls takes.
pub(super) async fn watch(shared: SharedRef, index: usize, driver: impl Future<Output = ()>) {
    let mut driver = pin!(driver);
    std::future::poll_fn(|cx| {
        let Some(beat) = shared.beats.0.get(index) else {
            return Pin::as_mut(&mut driver).poll(cx);
        };
        let micros = |at: Duration| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        let begun = shared.client.clock().monotonic();
        beat.store(micros(begun).max(1), Ordering::Relaxed);
        let polled = Pin::as_mut(&mut driver).poll(cx);
        beat.store(0, Ordering::Relaxed);
        let took = shared.client.clock().monotonic().saturating_sub(begun);
        if took >= BLOCKED {
            let queue = &shared.work.queue;
            tracing::warn!(%queue, ?took, "a handler blocked its thread: register it as blocking");
        }
        polled
    })
    .await;
}
