//! Keeps one worker going, and stops it.

use std::{sync::Arc, time::Duration};

use longshore_core::{ErrorKind, Result, Settlement, Subscription, Text, Verdict, printable};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    Settings, Shared, SharedRef, Worker,
    dedup::Dedup,
    driver::Driver,
    handle::{Control, GRACE, State, Trouble, WorkerHandle},
    intake::Intake,
    leases,
    pace::Pace,
    settle::settle,
};
use crate::{Queue, telemetry};

/// How often the number of dead letters is looked at where there is a limit.
const LOOK_AT_DEAD: Duration = Duration::from_secs(5);
/// Pauses between two tries to subscribe.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Subscribes and starts the tasks of a worker.
pub(super) async fn start(worker: Worker) -> Result<WorkerHandle> {
    let Worker {
        client,
        queue,
        dispatch,
        settings,
    } = worker;
    client.ensure(queue.topology()).await?;
    let drivers = drivers(&settings);
    let (control, told) = watch::channel(Control {
        state: State::Running,
        concurrency: settings.concurrency,
        prefetch: settings.prefetch,
    });
    let shared = Arc::new(Shared {
        intake: Intake::new(drivers),
        pace: settings
            .rate
            .map(|rate| Pace::new(rate, client.clock().monotonic())),
        work: telemetry::Work::new(client.transport().system(), queue.name()),
        trouble: Trouble::default(),
        dedup: Arc::new(Dedup::new(
            client.clone(),
            Arc::clone(queue.topology()),
            settings.lock,
        )),
        told: told.clone(),
        client,
        dispatch,
        settings,
    });
    let mut keeper = Keeper {
        shared: Arc::clone(&shared),
        queue: queue.clone(),
        prefetch: 0,
        releasing: JoinSet::new(),
        beside: JoinSet::new(),
    };
    if shared.dedup.is_on() {
        keeper.beside.spawn(leases::keep(Arc::clone(&shared)));
    }
    shared
        .client
        .books()
        .warn(shared.client.transport().as_ref(), queue.topology());
    match keeper.below_dead_letter_limit().await {
        Ok(()) => keeper.subscribe(shared.settings.prefetch).await?,
        Err(why) => shared.trouble.set(Some(why)),
    }
    let tasks = (0..drivers)
        .map(|index| {
            tokio::spawn(Driver::new(index, drivers, Arc::clone(&shared), told.clone()).run())
        })
        .collect();
    let keeper = tokio::spawn(keeper.run(told, tasks));
    Ok(WorkerHandle::new(control, shared, keeper))
}

/// One driver for each core, and no more than there are slots. One on a current-thread runtime.
fn drivers(settings: &Settings) -> usize {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    threads.clamp(1, settings.concurrency)
}

struct Keeper {
    shared: SharedRef,
    queue: Queue,
    /// What the open source was told.
    prefetch: u16,
    /// What never started, on its way back to the broker.
    releasing: JoinSet<()>,
    /// Goes on until the worker has stopped.
    beside: JoinSet<()>,
}

impl Keeper {
    async fn run(mut self, mut told: watch::Receiver<Control>, drivers: Vec<JoinHandle<()>>) {
        let mut stopping = told.clone();
        let deadline = tokio::select! {
            biased;
            deadline = told_to_stop(&mut stopping) => deadline,
            // Whatever it waits for then is dropped: a stop waits for no broker.
            () = self.keep(&mut told) => Instant::now(),
        };
        self.stop(deadline, drivers).await;
    }

    /// Keeps a source open while the worker runs and none while it is paused. Cancel-safe.
    async fn keep(&mut self, told: &mut watch::Receiver<Control>) {
        let mut pause = FIRST_PAUSE;
        let mut again_at = Instant::now();
        let mut look_at = Instant::now() + LOOK_AT_DEAD;
        loop {
            let Control {
                state, prefetch, ..
            } = *told.borrow_and_update();
            let open = self.shared.intake.is_open();
            let waiting = !open && state == State::Running;
            if open && state == State::Paused {
                self.release().await;
                (pause, again_at) = (FIRST_PAUSE, Instant::now());
                continue;
            }
            if waiting && again_at <= Instant::now() {
                let admitted = self.admit(prefetch).await;
                self.shared.trouble.set(admitted.err());
                // Also after a success, so that a source that ends at once is not opened in a loop.
                again_at = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            if open && prefetch != self.prefetch {
                // It was changed while the source was being opened.
                let _ = self.shared.intake.set_prefetch(prefetch);
                self.prefetch = prefetch;
            }
            let limited = open && self.shared.settings.dead_letter_limit.is_some();
            tokio::select! {
                biased;
                changed = told.changed() => if changed.is_err() {
                    return;
                },
                () = self.shared.intake.ended.notified() => {
                    let why = self.shared.intake.ended_with();
                    let why = why.map_or_else(|| "the source ended".to_owned(), |e| e.to_string());
                    tracing::warn!(queue = %self.queue.name(), why, "subscribing again");
                    // Another may have been opened before this was heard of.
                    if !self.shared.intake.is_open() {
                        self.shared.trouble.set(Some(why.into()));
                    }
                    if again_at + LONGEST_PAUSE < Instant::now() {
                        pause = FIRST_PAUSE;
                    }
                }
                () = tokio::time::sleep_until(again_at), if waiting => {}
                () = tokio::time::sleep_until(look_at), if limited => {
                    if let Err(why) = self.below_dead_letter_limit().await {
                        self.shared.trouble.set(Some(why));
                        self.release().await;
                        again_at = Instant::now() + LOOK_AT_DEAD;
                    }
                    look_at = Instant::now() + LOOK_AT_DEAD;
                }
            }
        }
    }

    /// Subscribes, if the dead letters allow it.
    async fn admit(&mut self, prefetch: u16) -> Result<(), Text> {
        self.below_dead_letter_limit().await?;
        self.subscribe(prefetch).await.map_err(|error| {
            if error.kind() == ErrorKind::Closed {
                return Text::from_static("the client is closed");
            }
            tracing::warn!(queue = %self.queue.name(), %error, "cannot subscribe");
            printable(&error.to_string(), 256).into()
        })
    }

    async fn subscribe(&mut self, prefetch: u16) -> Result<()> {
        let Shared {
            client, settings, ..
        } = &*self.shared;
        let subscription = Subscription {
            topology: Arc::clone(self.queue.topology()),
            declare: client.declare_mode(),
            part: longshore_core::Part::Lane(0),
            ownership: None,
            prefetch,
            lock: settings.lock,
            // A message that came back this often without an explanation runs apart from others,
            // as long as it then still has an attempt left.
            suspect_returns: match settings.max_attempts {
                1 => u32::MAX,
                2 => 1,
                _ => 2,
            },
            limits: *client.limits(),
        };
        let subscribed = client.transport().subscribe(subscription).await?;
        self.shared.intake.open(subscribed);
        self.prefetch = prefetch;
        Ok(())
    }

    async fn below_dead_letter_limit(&self) -> Result<(), Text> {
        let Some(limit) = self.shared.settings.dead_letter_limit else {
            return Ok(());
        };
        // A broker that cannot say is no reason to stop: the next look will tell.
        let dead = match self.shared.client.stats(&self.queue).await {
            Ok(stats) => stats.dead,
            Err(_) => return Ok(()),
        };
        if dead < limit {
            return Ok(());
        }
        Err(format!("{dead} dead letters, the limit is {limit}: redrive or discard some").into())
    }

    /// Takes nothing more and hands back what never started.
    async fn release(&mut self) {
        let Some((unstarted, desk)) = self.shared.intake.close().await else {
            return;
        };
        let batch: Vec<Settlement> = unstarted
            .into_iter()
            .map(|d| {
                Settlement::new(
                    d.receipt,
                    d.attempt,
                    Verdict::Release {
                        after: Duration::ZERO,
                    },
                    d.envelope,
                )
            })
            .collect();
        while self.releasing.try_join_next().is_some() {}
        // On a task of its own: the broker may be slow, and the worker may have to stop meanwhile.
        self.releasing
            .spawn(settle(Arc::clone(&self.shared), desk, batch));
    }

    /// Stops the worker. The order matters:
    ///
    /// 1. Take nothing more: the source stops, so nothing arrives that would have to go back.
    /// 2. Hand back what never started, so that others can have it while handlers still run here.
    /// 3. Let running handlers finish until the deadline; each driver ends when its last one is
    ///    settled, or drops and settles what is left.
    /// 4. Drop the sources, which ends locks and connections. Nothing may be unsettled by then.
    async fn stop(mut self, deadline: Instant, drivers: Vec<JoinHandle<()>>) {
        let last = deadline + GRACE;
        let _ = tokio::time::timeout_at(last, async {
            self.release().await;
            while self.releasing.join_next().await.is_some() {}
        })
        .await;
        for driver in drivers {
            let abort = driver.abort_handle();
            if tokio::time::timeout_at(last + GRACE / 8, driver)
                .await
                .is_err()
            {
                abort.abort();
            }
        }
        self.shared.intake.drop_sources();
    }
}

/// The deadline, once the worker is told to stop or nobody is left to tell it.
async fn told_to_stop(told: &mut watch::Receiver<Control>) -> Instant {
    let is_stop = |control: &Control| matches!(control.state, State::Stopping { .. });
    match told.wait_for(is_stop).await.map(|control| control.state) {
        Ok(State::Stopping { deadline }) => deadline,
        _ => Instant::now(),
    }
}
