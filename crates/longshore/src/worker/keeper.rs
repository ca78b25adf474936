//! Keeps one worker going, and stops it.

use std::sync::Arc;

use futures_util::future::{OptionFuture, join_all};
use longshore_core::{Part, Result};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    Settings, Shared, SharedRef, Worker,
    beats::{self, Beats},
    dedup::Dedup,
    driver::Driver,
    handle::{Control, GRACE, State, WorkerHandle},
    holding::Holdings,
    intake::Intake,
    lanes::LaneKeeper,
    leases,
    limit::Limit,
    notice::{Notice, Reader},
    pace::Pace,
    partitions::Partitions,
    trouble::Trouble,
    window::Window,
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
    let control = Notice::new(Control {
        state: State::Running,
        concurrency: settings.concurrency,
        prefetch: settings.prefetch,
    });
    let told = control.reader();
    let lanes = match queue.topology().partitions {
        0 => queue.lanes_by_priority(),
        _ => Vec::new(),
    };
    let intake = Intake::new(lanes.len(), settings.turns(), drivers);
    let shared = Arc::new(Shared {
        holdings: Holdings::new(Arc::clone(&intake.waiting)),
        intake,
        pace: settings
            .rate
            .map(|rate| Pace::new(rate, client.clock().monotonic())),
        work: telemetry::Work::new(client.transport().system(), queue.name()),
        trouble: Trouble::default(),
        beats: Beats::new(drivers),
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
    let (windows, inboxes): (Vec<_>, Vec<_>) = (0..drivers)
        .map(|_| Window::new(Arc::clone(&shared)))
        .unzip();
    let lane =
        |(at, lane)| LaneKeeper::new(Arc::clone(&shared), topology.clone(), Part::Lane(lane), at);
    let mut keeper = Keeper {
        lanes: lanes.into_iter().enumerate().map(lane).collect(),
        partitions: (topology.partitions > 0)
            .then(|| Partitions::new(Arc::clone(&shared), topology.clone(), inboxes)),
        limit: Limit::new(Arc::clone(&shared), queue).await,
        _beside: beside,
    };
    if keeper.limit.may().get() {
        keeper.open(shared.settings.prefetch).await?;
    }
    let tasks = windows
        .into_iter()
        .enumerate()
        .map(|(index, window)| {
            let driver = Driver::new(index, drivers, Arc::clone(&shared), told.clone(), window);
            tokio::spawn(beats::watch(Arc::clone(&shared), index, driver.run()))
        })
        .collect();
    let keeper = tokio::spawn(keeper.run(Arc::clone(&shared), told, tasks));
    Ok(WorkerHandle::new(control, shared, keeper))
}

/// One driver for each core, and no more than there are slots. One on a current-thread runtime.
fn drivers(settings: &Settings) -> usize {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    threads.clamp(1, settings.concurrency)
}

struct Keeper {
    /// What a queue without sessions is made of, and what one with sessions.
    lanes: Vec<LaneKeeper>,
    partitions: Option<Partitions>,
    limit: Limit,
    /// Goes on until the worker has stopped.
    _beside: JoinSet<()>,
}

impl Keeper {
    /// The first time, where mistakes are told.
    async fn open(&mut self, prefetch: u16) -> Result<()> {
        for lane in &mut self.lanes {
            lane.open(prefetch).await?;
        }
        match &mut self.partitions {
            Some(partitions) => partitions.join().await,
            None => Ok(()),
        }
    }

    async fn run(mut self, shared: SharedRef, told: Reader<Control>, drivers: Vec<JoinHandle<()>>) {
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
    async fn keep(&mut self, told: &Reader<Control>) {
        let Self {
            lanes,
            partitions,
            limit,
            ..
        } = self;
        let lanes = lanes
            .iter_mut()
            .map(|lane| lane.keep(told.clone(), limit.may()));
        let lanes = join_all(lanes);
        let partitions = partitions
            .as_mut()
            .map(|partitions| partitions.keep(told.clone(), limit.may()));
        tokio::select! {
            biased;
            _ = async { tokio::join!(lanes, OptionFuture::from(partitions)) } => {}
            () = limit.keep() => {}
        }
    }

    /// Stops the worker. The order matters:
    ///
    /// 1. Take nothing more: the sources stop, so nothing arrives that would have to go back.
    /// 2. Hand back what never started, so that others can have it while handlers still run here.
    /// 3. Let running handlers finish until the deadline; each driver ends when its last one is
    ///    settled, or drops and settles what is left. A partition is given back as soon as nothing
    ///    of it runs.
    /// 4. Drop the sources, which ends locks and connections. Nothing may be unsettled by then.
    async fn stop(mut self, deadline: Instant, drivers: Vec<JoinHandle<()>>) {
        let last = deadline + GRACE;
        let lanes = join_all(self.lanes.iter_mut().map(LaneKeeper::stop));
        let partitions = OptionFuture::from(self.partitions.take().map(Partitions::stop));
        let stopped = async { tokio::join!(lanes, partitions) };
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
async fn told_to_stop(told: &mut Reader<Control>) -> Instant {
    let is_stop = |control: &Control| matches!(control.state, State::Stopping { .. });
    match told.wait_for(is_stop).await.map(|control| control.state) {
        Ok(State::Stopping { deadline }) => deadline,
        _ => Instant::now(),
    }
}
