//! Keeps the source of one lane open.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    ErrorKind, Part, Result, Settlement, Subscription, Text, Topology, Verdict, chaos::Flaw,
    printable,
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Shared, SharedRef,
    handle::{Control, State},
    notice::Reader,
    settle::settle,
    trouble::Of,
};

/// Pauses between two tries to subscribe.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps the source of one lane open while the worker runs, whatever happens in the other lanes.
pub(super) struct LaneKeeper {
    shared: SharedRef,
    topology: Arc<Topology>,
    part: Part,
    /// Its place in the intake.
    at: usize,
    /// What the open source was told.
    prefetch: u16,
    /// What never started, on its way back to the broker.
    releasing: JoinSet<()>,
}

impl LaneKeeper {
    pub(super) fn new(shared: SharedRef, topology: Arc<Topology>, part: Part, at: usize) -> Self {
        Self {
            shared,
            topology,
            part,
            at,
            prefetch: 0,
            releasing: JoinSet::new(),
        }
    }

    /// Keeps a source open while the worker runs and `may` says so, and none otherwise. Cancel-safe.
    pub(super) async fn keep(&mut self, mut told: Reader<Control>, mut may: Reader<bool>) {
        let shared = Arc::clone(&self.shared);
        let intake = &shared.intake;
        let mut pause = FIRST_PAUSE;
        let mut again_at = Instant::now();
        loop {
            let Control {
                state, prefetch, ..
            } = told.see();
            let wanted = state == State::Running && may.see();
            let open = intake.is_open(self.at);
            let waiting = !open && wanted;
            let too_old = self.too_old();
            if open && (!wanted || too_old.is_some_and(|at| at <= Instant::now())) {
                self.release().await;
                (pause, again_at) = (FIRST_PAUSE, Instant::now());
                continue;
            }
            if waiting && again_at <= Instant::now() {
                let subscribed = self.open(prefetch).await;
                let trouble = subscribed.map_err(|error| {
                    if error.kind() == ErrorKind::Closed {
                        return Text::from_static("the client is closed");
                    }
                    tracing::warn!(queue = %self.topology.queue, %error, "cannot subscribe");
                    printable(&error.to_string(), 256).into()
                });
                shared.trouble.set(Of::Part(self.part), trouble.err());
                // Also after a success, so that a source that ends at once is not opened in a loop.
                again_at = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            if open && prefetch != self.prefetch {
                // It was changed while the source was being opened.
                let _ = intake.set_prefetch(self.at, prefetch);
                self.prefetch = prefetch;
            }
            tokio::select! {
                biased;
                changed = told.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = may.changed() => {}
                () = intake.ended(self.at) => {
                    if Flaw::NoReconnect.on() {
                        return;
                    }
                    let why = intake.ended_with(self.at);
                    let why = why.map_or_else(|| "the source ended".to_owned(), |e| e.to_string());
                    tracing::warn!(queue = %self.topology.queue, why, "subscribing again");
                    // Another may have been opened before this was heard of.
                    if !intake.is_open(self.at) {
                        shared.trouble.set(Of::Part(self.part), Some(why.into()));
                    }
                    if again_at + LONGEST_PAUSE < Instant::now() {
                        pause = FIRST_PAUSE;
                    }
                }
                () = tokio::time::sleep_until(again_at), if waiting => {}
                () = tokio::time::sleep_until(too_old.unwrap_or(again_at)), if too_old.is_some() => {}
            }
        }
    }

    /// When what waits here untaken has to go back. A lane that others leave no handler slot would
    /// keep its deliveries longer than the broker lets it, and a broker that takes them back by
    /// itself counts that against them.
    fn too_old(&self) -> Option<Instant> {
        let longest = self.shared.client.capabilities().longest_lock?;
        if self.topology.lanes.is_empty() {
            return None; // The start-up check has looked at that.
        }
        let oldest = self.shared.intake.oldest(self.at)?;
        oldest.checked_add(longest / 2)
    }

    pub(super) async fn open(&mut self, prefetch: u16) -> Result<()> {
        let Shared {
            client, settings, ..
        } = &*self.shared;
        let subscription = Subscription {
            topology: Arc::clone(&self.topology),
            declare: client.declare_mode(),
            part: self.part,
            ownership: None,
            prefetch,
            lock: settings.lock,
            suspect_returns: settings.suspect_returns(),
            limits: *client.limits(),
        };
        let subscribed = client.transport().subscribe(subscription).await?;
        self.shared.intake.open(self.at, subscribed, prefetch);
        self.prefetch = prefetch;
        Ok(())
    }

    /// Takes nothing more and hands back what never started.
    pub(super) async fn release(&mut self) {
        let Some((unstarted, desk)) = self.shared.intake.close(self.at).await else {
            return;
        };
        let after = Duration::ZERO;
        let batch: Vec<Settlement> = unstarted
            .into_iter()
            .map(|d| Settlement::new(d.receipt, d.attempt, Verdict::Release { after }, d.envelope))
            .collect();
        while self.releasing.try_join_next().is_some() {}
        // On a task of its own: the broker may be slow, and the worker may have to stop meanwhile.
        self.releasing
            .spawn(settle(Arc::clone(&self.shared), desk, batch));
    }

    /// Releases, and waits until the broker has it.
    pub(super) async fn stop(&mut self) {
        self.release().await;
        while self.releasing.join_next().await.is_some() {}
    }
}
