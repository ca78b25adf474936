//! What the handlers of one run have seen.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    cpu,
    job::{self, Job},
};

/// What the handlers of one run have seen: every message once, it is hoped.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) run: u32,
    seen: Vec<AtomicBool>,
    distinct: AtomicU32,
    duplicates: AtomicU32,
    first: OnceLock<Mark>,
    last: OnceLock<Mark>,
    complete: Notify,
    /// Times from publish to handler; where they are wanted.
    latencies: Option<Mutex<Vec<u64>>>,
}

/// A point in time, and the CPU time used by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    at: Instant,
    cpu: Option<Duration>,
}

/// Messages at the beginning of a latency run that are not counted: connections and caches are cold.
const COLD: u32 = 500;

impl Mark {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu::used(),
        }
    }

    /// Time and CPU time from here to there.
    pub(crate) fn until(self, later: Self) -> (Duration, Option<Duration>) {
        let cpu = self
            .cpu
            .zip(later.cpu)
            .map(|(from, to)| to.saturating_sub(from));
        (later.at.saturating_duration_since(self.at), cpu)
    }
}

impl Tally {
    /// Waits for `count` messages of this run.
    pub(crate) fn new(run: u32, count: u32) -> Self {
        Self {
            run,
            seen: (0..count).map(|_| AtomicBool::new(false)).collect(),
            distinct: AtomicU32::new(0),
            duplicates: AtomicU32::new(0),
            first: OnceLock::new(),
            last: OnceLock::new(),
            complete: Notify::new(),
            latencies: None,
        }
    }

    /// Notes how long messages took, too.
    pub(crate) fn with_latencies(mut self) -> Self {
        self.latencies = Some(Mutex::default());
        self
    }

    /// What every handler does.
    pub(crate) fn count(&self, job: &Job) {
        let Some(seen) = self.seen.get(job.number as usize) else {
            return;
        };
        if job.run != self.run {
            return;
        }
        if let Some(latencies) = &self.latencies
            && job.number >= COLD
        {
            let took = job::now().saturating_sub(job.sent);
            latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(took);
        }
        if seen.swap(true, Ordering::Relaxed) {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = self.distinct.fetch_add(1, Ordering::AcqRel);
        if before == 0 {
            let _ = self.first.set(Mark::now());
        }
        if before + 1 == self.expected() {
            let _ = self.last.set(Mark::now());
            self.complete.notify_waiters();
        }
    }

    /// Whether every message was seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.distinct.load(Ordering::Acquire) == self.expected()
    }

    /// Resolves when every message was seen.
    pub(crate) async fn complete(&self) {
        let told = self.complete.notified();
        if !self.is_complete() {
            told.await;
        }
    }

    pub(crate) fn expected(&self) -> u32 {
        u32::try_from(self.seen.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn distinct(&self) -> u32 {
        self.distinct.load(Ordering::Acquire)
    }

    pub(crate) fn lost(&self) -> u64 {
        u64::from(self.expected() - self.distinct())
    }

    pub(crate) fn duplicates(&self) -> u64 {
        u64::from(self.duplicates.load(Ordering::Acquire))
    }

    /// From the first message handled to the last; to now where some are missing. What it takes to
    /// subscribe is not in it.
    pub(crate) fn span(&self) -> (Duration, Option<Duration>) {
        let now = Mark::now();
        let first = self.first.get().copied().unwrap_or(now);
        first.until(self.last.get().copied().unwrap_or(now))
    }

    /// All latencies in nanoseconds, the shortest first.
    pub(crate) fn latencies(&self) -> Vec<u64> {
        let latencies = self.latencies.as_ref();
        let mut sorted = latencies
            .map(|noted| noted.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default();
        sorted.sort_unstable();
        sorted
    }
}
