//! A running worker, seen from outside.

use std::{sync::Arc, time::Duration};

use longshore_core::{Result, Text, chaos::Flaw};
use tokio::{task::JoinHandle, time::Instant};

use super::{Figures, SharedRef, notice::Notice, turns::Turns};

/// After the stop deadline: the time in which what was dropped is settled.
pub(super) const GRACE: Duration = Duration::from_millis(400);

/// A running worker, seen from outside.
///
/// Dropping it stops the worker as [`stop`](Self::stop) does, in the background; the runtime must
/// live long enough for that.
#[derive(Debug)]
pub struct WorkerHandle {
    control: Notice<Control>,
    shared: Arc<Seen>,
    keeper: Option<JoinHandle<()>>,
    stop_deadline: Duration,
}

/// Whether a worker can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// Connected and taking messages.
    Ready,
    /// Nothing arrives just now, and why. The worker goes on trying.
    NotReady(Text),
}

/// What a worker is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) state: State,
    pub(super) concurrency: usize,
    pub(super) prefetch: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Paused,
    Stopping { deadline: Instant },
}

struct Seen(SharedRef);

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.work.queue)
    }
}

impl WorkerHandle {
    pub(super) fn new(control: Notice<Control>, shared: SharedRef, keeper: JoinHandle<()>) -> Self {
        Self {
            control,
            stop_deadline: shared.settings.stop_deadline,
            shared: Arc::new(Seen(shared)),
            keeper: Some(keeper),
        }
    }

    /// Stops gracefully: takes nothing more, hands back what never started at no cost to its
    /// attempts, lets running handlers finish until the stop deadline, then cancels and drops them
    /// (their attempt is used up), settles, and closes. Over by the deadline + 0.5 s.
    pub async fn stop(mut self) {
        self.begin_stop();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.await;
        }
    }

    /// Takes nothing more and hands back what never started; running handlers go on.
    pub fn pause(&self) {
        self.switch(State::Running, State::Paused);
    }

    /// Takes messages again.
    pub fn resume(&self) {
        self.switch(State::Paused, State::Running);
    }

    /// Changes how many handlers run at a time, from the next start on.
    ///
    /// # Panics
    /// Outside 1 to 10,000.
    #[track_caller]
    pub fn set_concurrency(&self, handlers: usize) {
        let concurrency = super::within("concurrency", handlers, 1, 10_000);
        self.control.change(|control| {
            control.concurrency = concurrency;
            true
        });
    }

    /// Changes how many messages may be here unsettled; what is above it drains first.
    ///
    /// # Errors
    /// `Unsupported` where the transport cannot change it while running.
    ///
    /// # Panics
    /// Outside 1 to 1,000.
    #[track_caller]
    pub fn set_prefetch(&self, messages: u16) -> Result<()> {
        let prefetch = super::within("prefetch", messages, 1, 1_000);
        let intake = &self.shared.0.intake;
        for lane in 0..self.shared.0.lanes.len() {
            intake.set_prefetch(lane, prefetch)?;
        }
        self.control.change(|control| {
            control.prefetch = prefetch;
            true
        });
        Ok(())
    }

    /// Changes how the lanes share the handler slots, from the next start on; a worker that served
    /// them strictly does so by weight then. See [`Worker::weights`](crate::Worker::weights).
    ///
    /// # Panics
    /// As [`Worker::weights`](crate::Worker::weights).
    #[track_caller]
    pub fn set_weights<N: AsRef<str>>(&self, weights: impl IntoIterator<Item = (N, u32)>) {
        let shared = &self.shared.0;
        let weights = super::turns::weights(&shared.lanes, weights);
        shared.intake.set_turns(Turns::weighted(&weights));
    }

    /// Whether the worker can do its work. Turns not-ready within 5 s of the broker going away, and while
    /// a handler blocks the thread it runs on for 2 s or more.
    pub fn health(&self) -> Health {
        let shared = &self.shared.0;
        let stopped = self.keeper.as_ref().is_none_or(JoinHandle::is_finished);
        let trouble = match self.control.get().state {
            _ if stopped => Some(Text::from_static("the worker has stopped")),
            State::Paused => Some(Text::from_static("the worker is paused")),
            State::Stopping { .. } => Some(Text::from_static("the worker is stopping")),
            State::Running => shared
                .trouble
                .first()
                .or_else(|| shared.beats.trouble(shared.client.clock().monotonic()))
                .or_else(|| shared.intake.trouble())
                .or_else(|| shared.holdings.trouble())
                .or_else(|| shared.store_trouble()),
        };
        trouble.map_or(Health::Ready, Health::NotReady)
    }

    /// What the worker is doing, in numbers.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.shared.0)
    }

    fn switch(&self, from: State, to: State) {
        self.control.change(|control| {
            let fits = control.state == from;
            if fits {
                control.state = to;
            }
            fits
        });
    }

    fn begin_stop(&self) {
        let mut deadline = Instant::now() + self.stop_deadline;
        if Flaw::StopWaits.on() {
            deadline += Duration::from_secs(3600);
        }
        self.control.change(|control| {
            let fits = !matches!(control.state, State::Stopping { .. });
            if fits {
                control.state = State::Stopping { deadline };
            }
            fits
        });
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.begin_stop();
    }
}
