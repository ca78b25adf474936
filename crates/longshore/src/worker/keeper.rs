//! Keeps one worker going, and stops it.

use std::{sync::Arc, time::Duration};

use longshore_core::{ErrorKind, Result, Settlement, Subscription, Text, Verdict, printable};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Settings, Shared, SharedRef, Worker,
    driver::Driver,
    handle::{Control, GRACE, State, Trouble, WorkerHandle},
    intake::Intake,
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
    let shared = Arc::new(Shared {
        intake: Intake::new(drivers),
        pace: settings
            .rate
            .map(|rate| Pace::new(rate, client.clock().monotonic())),
        work: telemetry::Work::new(client.transport().system(), queue.name()),
        trouble: Trouble::default(),
        client,
        dispatch,
        settings,
    });
    let keeper = Keeper {
        shared: Arc::clone(&shared),
        queue,
    };
    keeper.subscribe(shared.settings.prefetch).await?;
    let (control, told) = watch::channel(Control {
        state: State::Running,
        concurrency: shared.settings.concurrency,
        prefetch: shared.settings.prefetch,
    });
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
}

impl Keeper {
    async fn run(self, mut told: watch::Receiver<Control>, drivers: Vec<JoinHandle<()>>) {
        let mut open = true;
        let mut pause = FIRST_PAUSE;
        loop {
            let control = *told.borrow_and_update();
            match control.state {
                State::Stopping { deadline } => return self.stop(deadline, drivers).await,
                State::Paused if open => {
                    self.release().await;
                    open = false;
                    continue;
                }
                State::Running if !open => match self.admit(control.prefetch).await {
                    Ok(()) => {
                        self.shared.trouble.set(None);
                        open = true;
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(why) => {
                        self.shared.trouble.set(Some(why));
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
                _ => {}
            }
            let waiting = !open && control.state == State::Running;
            let limited = open && self.shared.settings.dead_letter_limit.is_some();
            tokio::select! {
                biased;
                changed = told.changed() => if changed.is_err() {
                    return self.stop(Instant::now(), drivers).await;
                },
                () = self.shared.intake.ended.notified() => {
                    open = false;
                    let why = self.shared.intake.ended_with();
                    let why = why.map_or_else(|| "the source ended".to_owned(), |e| e.to_string());
                    tracing::warn!(queue = %self.queue.name(), why, "subscribing again");
                    self.shared.trouble.set(Some(why.into()));
                }
                () = tokio::time::sleep(pause), if waiting => {}
                () = tokio::time::sleep(LOOK_AT_DEAD), if limited => {
                    if let Err(why) = self.below_dead_letter_limit().await {
                        self.shared.trouble.set(Some(why));
                        self.release().await;
                        open = false;
                    }
                }
            }
        }
    }

    /// Subscribes, if the dead letters allow it.
    async fn admit(&self, prefetch: u16) -> Result<(), Text> {
        self.below_dead_letter_limit().await?;
        self.subscribe(prefetch).await.map_err(|error| {
            if error.kind() == ErrorKind::Closed {
                return Text::from_static("the client is closed");
            }
            tracing::warn!(queue = %self.queue.name(), %error, "cannot subscribe");
            printable(&error.to_string(), 256).into()
        })
    }

    async fn subscribe(&self, prefetch: u16) -> Result<()> {
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
    async fn release(&self) {
        let (unstarted, desk) = self.shared.intake.close().await;
        let Some(desk) = desk else { return };
        let batch: Vec<Settlement> = unstarted
            .into_iter()
            .map(|d| Settlement::new(d.receipt, d.attempt, Verdict::Release, d.envelope))
            .collect();
        settle(Arc::clone(&self.shared), desk, batch).await;
    }

    /// Stops the worker. The order matters:
    ///
    /// 1. Take nothing more: the source stops, so nothing arrives that would have to go back.
    /// 2. Hand back what never started, so that others can have it while handlers still run here.
    /// 3. Let running handlers finish until the deadline; each driver ends when its last one is
    ///    settled, or drops and settles what is left.
    /// 4. Drop the sources, which ends locks and connections. Nothing may be unsettled by then.
    async fn stop(self, deadline: Instant, drivers: Vec<JoinHandle<()>>) {
        let last = deadline + GRACE;
        let _ = tokio::time::timeout_at(last, self.release()).await;
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
