//! What consumes a queue.

mod admit;
mod attempt;
mod balance;
mod beats;
mod bookkeeping;
mod claim;
mod closings;
mod conclude;
mod dedup;
mod desk;
mod driver;
mod figures;
mod forward;
mod grip;
mod handle;
mod holding;
mod intake;
mod keeper;
mod lanes;
mod leases;
mod limit;
mod notice;
mod pace;
mod partitions;
mod seats;
mod sessions;
mod settle;
mod spare;
mod tenure;
mod trouble;
mod turns;
mod waiting;
mod window;

use std::{future::Future, sync::Arc, time::Duration};

use longshore_core::{Error, ErrorKind, Outcome, Result, Text, chaos::Flaw, defaults};
use tower_layer::Layer;
use tower_service::Service;

pub use self::{
    figures::{Figures, OwnedPartition},
    handle::{Health, WorkerHandle},
};
use crate::{Backoff, Client, Context, HandlerError, Queue, Router, Routes, router::Dispatch};

/// What consumes a queue: takes messages as handler slots become free, runs them, settles them.
///
/// Nothing transient ends it: it reconnects, declares again what is missing and goes on. It ends by
/// [`WorkerHandle::stop`], by dropping the handle, or by the shutdown of [`run_until`](Self::run_until).
///
/// | setting | default | range |
/// |---|---|---|
/// | `max_attempts` | 5 | 1 to 1,000 |
/// | `concurrency` | 32 | 1 to 10,000 |
/// | `prefetch` | 64 | 1 to 1,000 |
/// | `time_limit` | 60 s | above 0 to 24 h |
/// | `lock` | 30 s | 1 s to 1 h |
/// | `stop_deadline` | 30 s | 0 to 1 h |
/// | `backoff` | 1 s doubling to 5 min | above 0 to a year |
/// | `rate` | none | 1 to 1,000,000 starts/s |
/// | `dead_letter_limit` | none | 1 and above |
/// | `weights` | none: lanes are served strictly | 1 to 1,000 |
#[derive(Clone)]
#[must_use = "a worker does nothing until it is started"]
pub struct Worker {
    client: Client,
    queue: Queue,
    dispatch: Dispatch,
    settings: Settings,
}

/// Everything about a worker that is a number.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    max_attempts: u32,
    concurrency: usize,
    prefetch: u16,
    time_limit: Duration,
    lock: Duration,
    stop_deadline: Duration,
    backoff: Backoff,
    rate: Option<u32>,
    dead_letter_limit: Option<u64>,
    set_aside_sessions: bool,
    /// One for each lane, the most urgent first; none: strictly in that order.
    weights: Option<Vec<u32>>,
}

impl Settings {
    fn turns(&self) -> turns::Turns {
        match &self.weights {
            Some(weights) => turns::Turns::weighted(weights),
            None => turns::Turns::Strict,
        }
    }

    /// From how many unexplained returns on a message runs apart from others, as long as it then
    /// still has an attempt left.
    fn suspect_returns(&self) -> u32 {
        match self.max_attempts {
            1 => u32::MAX,
            2 => 1,
            _ => 2,
        }
    }
}

impl Worker {
    /// A worker for this queue.
    ///
    /// # Panics
    /// When the router has neither a route nor a fallback: every message would become a dead letter.
    #[track_caller]
    pub fn new<L>(client: &Client, queue: &Queue, router: Router<L>) -> Self
    where
        L: Layer<Routes>,
        L::Service: Service<Context, Response = Outcome> + Send + Sync + 'static,
        L::Service: Clone, // a service is cloned for every start: derive `Clone` for yours
        <L::Service as Service<Context>>::Error: Into<HandlerError>,
        <L::Service as Service<Context>>::Future: Send,
    {
        let dispatch = router.into_dispatch();
        assert!(
            !dispatch.is_empty(),
            "the router has no routes; add one with `handle` or `handle_fn`"
        );
        Self {
            client: client.clone(),
            queue: queue.clone(),
            dispatch,
            settings: Settings {
                max_attempts: defaults::MAX_ATTEMPTS,
                concurrency: defaults::CONCURRENCY,
                prefetch: defaults::PREFETCH,
                time_limit: defaults::TIME_LIMIT,
                lock: defaults::LOCK,
                stop_deadline: defaults::STOP_DEADLINE,
                backoff: Backoff::default(),
                rate: None,
                dead_letter_limit: None,
                set_aside_sessions: false,
                weights: None,
            },
        }
    }

    /// How often a handler may start for one message, over all processes and restarts. With 1 this
    /// is at-most-once: a message whose process died becomes a dead letter as `abandoned`.
    ///
    /// # Panics
    /// Outside 1 to 1,000.
    #[track_caller]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts =
            within("max_attempts", attempts, 1, 1_000) + u32::from(Flaw::OneAttemptMore.on());
        self
    }

    /// How many handlers run at a time.
    ///
    /// # Panics
    /// Outside 1 to 10,000.
    #[track_caller]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.concurrency = within("concurrency", handlers, 1, 10_000);
        self
    }

    /// How many messages may be here unsettled, running ones included. What waits here is hidden
    /// from other workers.
    ///
    /// # Panics
    /// Outside 1 to 1,000.
    #[track_caller]
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.settings.prefetch = within("prefetch", messages, 1, 1_000);
        self
    }

    /// How long one start of a handler may take before it is dropped and counts as failed. A route
    /// can have its own.
    ///
    /// # Panics
    /// When zero or above 24 hours.
    #[track_caller]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        let least = Duration::from_nanos(1);
        self.settings.time_limit = within("time_limit", limit, least, defaults::LONGEST_TIME_LIMIT);
        self
    }

    /// How long a message stays hidden after its process has died, where the broker needs a lock
    /// (Redis, memory). Renewed at a third while the message is here.
    ///
    /// # Panics
    /// Outside 1 second to 1 hour.
    #[track_caller]
    pub fn lock(mut self, lock: Duration) -> Self {
        self.settings.lock = within(
            "lock",
            lock,
            Duration::from_secs(1),
            Duration::from_secs(3600),
        );
        self
    }

    /// How long running handlers may finish once the worker is told to stop.
    ///
    /// # Panics
    /// Above 1 hour.
    #[track_caller]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        let longest = Duration::from_secs(3600);
        self.settings.stop_deadline = within("stop_deadline", deadline, Duration::ZERO, longest);
        self
    }

    /// How long a failed message waits for its next attempt.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// How many handlers may start a second, on average; a tenth of it at once. Messages wait on
    /// the broker and in the prefetch buffer and lose no attempt by it.
    ///
    /// # Panics
    /// Outside 1 to 1,000,000.
    #[track_caller]
    pub fn rate(mut self, starts_per_second: u32) -> Self {
        self.settings.rate = Some(within("rate", starts_per_second, 1, 1_000_000));
        self
    }

    /// Stops taking messages and turns not-ready while the queue has this many dead letters or
    /// more, looked at every 5 seconds. Dead letters are never trimmed.
    ///
    /// # Panics
    /// When zero.
    #[track_caller]
    pub fn dead_letter_limit(mut self, letters: u64) -> Self {
        self.settings.dead_letter_limit = Some(within("dead_letter_limit", letters, 1, u64::MAX));
        self
    }

    /// Serves the lanes of the queue by weight instead of strictly: while all have messages, each
    /// gets its share of the starts, so that none waits for ever. The share of a lane without
    /// messages goes to the others.
    ///
    /// ```
    /// # use longshore::{Queue, Router, Context, Worker, Outcome, Client};
    /// # fn worker(client: &Client, router: Router) -> Worker {
    /// let orders = Queue::new("orders").lanes(["high", "normal", "low"]);
    /// Worker::new(client, &orders, router).weights([("high", 8), ("normal", 3), ("low", 1)])
    /// # }
    /// ```
    ///
    /// # Panics
    /// When a lane is missing, unknown or there twice, or a weight lies outside 1 to 1,000.
    #[track_caller]
    pub fn weights<N: AsRef<str>>(mut self, weights: impl IntoIterator<Item = (N, u32)>) -> Self {
        let weights = turns::weights(&self.queue.lane_names(), weights);
        self.settings.weights = Some(weights);
        self
    }

    /// Sets a session aside whole when one of its messages becomes a dead letter: its other messages
    /// become dead letters too, unstarted, as `session-set-aside`, so that none is handled without
    /// those before it. Until [`Client::bring_back_session`] brings it back; redrive its dead letters
    /// then, in their order. By default the next message of the session runs.
    ///
    /// All workers of a queue should agree on it.
    ///
    /// # Panics
    /// When the queue has no sessions.
    #[track_caller]
    pub fn set_aside_sessions(mut self) -> Self {
        assert!(
            self.queue.topology().partitions > 0,
            "the queue \"{}\" has no sessions to set aside; declare it with `Queue::sessions`",
            self.queue.name()
        );
        self.settings.set_aside_sessions = true;
        self
    }

    /// Declares the queue, subscribes, and works in the background until the handle stops it.
    ///
    /// # Errors
    /// `TopologyDiffers`, `NoSuchQueue` (read-only clients), `Unsupported` for what this transport
    /// cannot keep, `Invalid` for a time limit the transport's locks cannot outlast, `Unavailable`
    /// when the broker cannot be reached.
    pub async fn start(self) -> Result<WorkerHandle> {
        self.check_locks()?;
        keeper::start(self).await
    }

    /// Works until `shutdown` completes, then stops gracefully.
    ///
    /// # Errors
    /// As [`start`](Self::start); once started there are none.
    pub async fn run_until(self, shutdown: impl Future) -> Result<()> {
        let handle = self.start().await?;
        shutdown.await;
        handle.stop().await;
        Ok(())
    }

    /// A delivery may wait for `prefetch ÷ concurrency` others before it runs; all that time it is
    /// unsettled.
    fn check_locks(&self) -> Result<()> {
        let Some(longest) = self.client.capabilities().longest_lock else {
            return Ok(());
        };
        let settings = &self.settings;
        let limit = self
            .dispatch
            .longest_limit()
            .unwrap_or_default()
            .max(settings.time_limit);
        let invalid = |text| Err(Error::new(ErrorKind::Invalid, text));
        if !self.queue.topology().lanes.is_empty() {
            // What other lanes keep from running goes back after half of that time.
            let most = longest / 2;
            return match limit <= most {
                true => Ok(()),
                false => invalid(format!(
                    "a message of a queue with lanes may run for at most {most:?} here, half of the time after \
                     which this broker takes it back, and the time limit is {limit:?}: lower it, or state the \
                     broker's consumer timeout when connecting"
                )),
            };
        }
        let prefetch = match self.queue.topology() {
            queue if queue.partitions > 0 => queue.partition_prefetch,
            _ => settings.prefetch,
        };
        let rounds = usize::from(prefetch).div_ceil(settings.concurrency);
        let needed = limit.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        if needed <= longest {
            return Ok(());
        }
        invalid(format!(
            "a message may stay unsettled for {needed:?} (time limit {limit:?} times prefetch ÷ concurrency), \
             but this broker takes it back after {longest:?}: lower the time limit or the prefetch, \
             raise the concurrency, or state the broker's consumer timeout when connecting"
        ))
    }
}

#[track_caller]
fn within<T: PartialOrd + std::fmt::Debug>(what: &str, value: T, least: T, most: T) -> T {
    assert!(
        value >= least && value <= most,
        "{what} must lie between {least:?} and {most:?}; got {value:?}"
    );
    value
}

/// What all parts of one running worker share.
pub(crate) struct Shared {
    client: Client,
    dispatch: Dispatch,
    settings: Settings,
    intake: intake::Intake,
    holdings: holding::Holdings,
    pace: Option<pace::Pace>,
    work: crate::telemetry::Work,
    trouble: trouble::Trouble,
    beats: beats::Beats,
    /// The names of the lanes, the most urgent first.
    lanes: Vec<Text>,
    dedup: Arc<dedup::Dedup>,
    /// A handler has asked for the state of its session.
    states_wanted: Arc<std::sync::atomic::AtomicBool>,
    /// What the worker is told to do.
    told: notice::Reader<handle::Control>,
}

impl Shared {
    /// Whether settlements may have to be told to the store.
    fn keeps_books(&self) -> bool {
        self.dedup.is_on() || self.dedup.has_sessions()
    }

    /// Why nothing starts: the store is asked before every start, and does not answer.
    fn store_trouble(&self) -> Option<Text> {
        self.keeps_books().then(|| self.client.books().trouble())?
    }
}

type SharedRef = Arc<Shared>;
