//! Keeps one worker going, and stops it.

use std::sync::Arc;

use futures_util::future::join_all;
use longshore_core::{Part, Result};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    Settings, Shared, SharedRef, Worker,
    dedup::Dedup,
    driver::Driver,
    handle::{Control, GRACE, State, WorkerHandle},
    intake::Intake,
    lanes::LaneKeeper,
    leases,
    limit::Limit,
    pace::Pace,
    trouble::Trouble,
};
use crate::telemetry;

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
    let lanes = queue.lanes_by_priority();
    let shared = Arc::new(Shared {
        intake: Intake::new(lanes.len(), settings.turns(), drivers),
        pace: settings
            .rate
            .map(|rate| Pace::new(rate, client.clock().monotonic())),
        work: telemetry::Work::new(client.transport().system(), queue.name()),
        trouble: Trouble::default(),
        lanes: queue.lane_names(),
        dedup: Arc::new(Dedup::new(
            client.clone(),
            Arc::clone(queue.topology()),
            settings.lock,
        )),
        states_wanted: Arc::default(),
        told: told.clone(),
        client,
        dispatch,
        settings,
    });
    let topology = queue.topology();
    shared
        .client
        .books()
        .warn(shared.client.transport().as_ref(), topology);
    let mut beside = JoinSet::new();
    if shared.dedup.is_on() {
        beside.spawn(leases::keep(Arc::clone(&shared)));
    }
    let lane =
        |(at, lane)| LaneKeeper::new(Arc::clone(&shared), topology.clone(), Part::Lane(lane), at);
    let mut lanes: Vec<_> = lanes.into_iter().enumerate().map(lane).collect();
    let limit = Limit::new(Arc::clone(&shared), queue).await;
    if *limit.may().borrow() {
        for lane in &mut lanes {
            lane.open(shared.settings.prefetch).await?;
        }
    }
    let tasks = (0..drivers)
        .map(|index| {
            tokio::spawn(Driver::new(index, drivers, Arc::clone(&shared), told.clone()).run())
        })
        .collect();
    let keeper = Keeper {
        lanes,
        limit,
        _beside: beside,
    };
    let keeper = tokio::spawn(keeper.run(Arc::clone(&shared), told, tasks));
    Ok(WorkerHandle::new(control, shared, keeper))
}

/// One driver for each core, and no more than there are slots. One on a current-thread runtime.
fn drivers(settings: &Settings) -> usize {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    threads.clamp(1, settings.concurrency)
}

struct Keeper {
    lanes: Vec<LaneKeeper>,
    limit: Limit,
    /// Goes on until the worker has stopped.
    _beside: JoinSet<()>,
}

impl Keeper {
    async fn run(
        mut self,
        shared: SharedRef,
        told: watch::Receiver<Control>,
        drivers: Vec<JoinHandle<()>>,
    ) {
        let mut stopping = told.clone();
        let deadline = tokio::select! {
            biased;
            deadline = told_to_stop(&mut stopping) => deadline,
            // Whatever it waits for then is dropped: a stop waits for no broker.
            () = self.keep(&told) => Instant::now(),
        };
        self.stop(deadline, drivers).await;
        shared.intake.drop_sources();
    }

    /// Keeps sources open while the worker runs and none while it is paused. Cancel-safe.
    async fn keep(&mut self, told: &watch::Receiver<Control>) {
        let Self { lanes, limit, .. } = self;
        let lanes = lanes
            .iter_mut()
            .map(|lane| lane.keep(told.clone(), limit.may()));
        tokio::select! {
            biased;
            _ = join_all(lanes) => {}
            () = limit.keep() => {}
        }
    }

    /// Stops the worker. The order matters:
    ///
    /// 1. Take nothing more: the sources stop, so nothing arrives that would have to go back.
    /// 2. Hand back what never started, so that others can have it while handlers still run here.
    /// 3. Let running handlers finish until the deadline; each driver ends when its last one is
    ///    settled, or drops and settles what is left.
    /// 4. Drop the sources, which ends locks and connections. Nothing may be unsettled by then.
    async fn stop(mut self, deadline: Instant, drivers: Vec<JoinHandle<()>>) {
        let last = deadline + GRACE;
        let stopped = join_all(self.lanes.iter_mut().map(LaneKeeper::stop));
        let _ = tokio::time::timeout_at(last, stopped).await;
        for driver in drivers {
            let abort = driver.abort_handle();
            if tokio::time::timeout_at(last + GRACE / 8, driver)
                .await
                .is_err()
            {
                abort.abort();
            }
        }
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
