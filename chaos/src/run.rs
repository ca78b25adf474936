//! One run: load and faults, heal, drain, check.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use longshore_testing::{
    checker::{Report, Verdict},
    history::{self, Event, Recorder},
};
use tokio::time::Instant;

use crate::{
    Failure, drain,
    faults::{self, Act},
    hindsight, inside, judge,
    order::{AFTER, Order, YOUTH},
    plan::{HISTORY, On, Plan},
    scene::Scene,
    slot::Tally,
    stall,
};

/// How old the queues of a RabbitMQ are at least when it is ended for the first time.
const AGE: Duration = Duration::from_secs(5);
/// How long the workers may take to be there. Those that die at a crash point may never be.
const READY: Duration = Duration::from_secs(10);
/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the checker says.
    pub(crate) report: Report,
    /// What became of the processes.
    pub(crate) tally: Tally,
    /// What broke and is nothing a history shows.
    pub(crate) broken: Vec<String>,
    /// How long all of it took.
    pub(crate) took: Duration,
    /// Where the files of the run are.
    pub(crate) folder: PathBuf,
}

impl Outcome {
    /// The last word.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.broken.is_empty() {
            true => self.report.verdict(),
            false => Verdict::Failed,
        }
    }
}

/// Runs it.
///
/// # Errors
/// What keeps it from being run. Whatever is found wrong is in the outcome instead.
pub(crate) async fn run(order: &Order, folder: &Path) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    let mut plan = Plan::new(order.seed, order.on, order.seconds, order.workers);
    (order.fault.plan)(&mut plan);

    let (mut tally, mut broken) = match order.on {
        On::Memory => inside::run(order, &plan, folder).await?,
        On::Amqp | On::Redis => outside(order, &plan, folder).await?,
    };
    broken.extend(tally.unexpected.iter().cloned());
    tally.stalls = stall::count(&folder.join(HISTORY))?;
    let report = judge::judge(order, &plan, &tally, &folder.join(HISTORY))?;
    Ok(Outcome {
        report,
        tally,
        broken,
        took: begun.elapsed(),
        folder: folder.to_owned(),
    })
}

/// With a broker and processes; gives back what became of them, and what broke.
async fn outside(
    order: &Order,
    plan: &Plan,
    folder: &Path,
) -> Result<(Tally, Vec<String>), Failure> {
    let path = folder.join(HISTORY);
    let history = Arc::new(Recorder::open(&path)?);
    // All proxies run in this process.
    let watched = Arc::clone(&history);
    let stalls = tokio::spawn(async move { stall::watch(&watched).await });
    let mut scene = Scene::open(plan.clone(), folder, history).await?;
    let mut broken = Vec::new();
    load(order, &mut scene, folder).await?;
    for slot in &scene.crew.publishers {
        slot.stop(Duration::from_secs(30)).await?;
    }
    let emptied = drain::emptied(&scene.client, &scene.plan, Some(&scene.broker));
    match emptied.await {
        Err(left) => broken.push(left),
        Ok(()) => {
            drain::dead_letters(&scene.client, &scene.plan, &scene.history).await?;
            hindsight::follow_ups(&scene.plan, &path, &scene.history)?;
            scene.history.add(Event::Drained)?;
        }
    }
    for slot in &scene.crew.workers {
        let patience = scene.plan.stop_deadline + Duration::from_secs(10);
        if let Err(late) = slot.stop(patience).await {
            broken.push(late.to_string());
            slot.kill()?;
        }
    }
    let mut tally = scene.crew.tally();
    tally.strikes = scene.strikes;
    stalls.abort();
    broken.append(&mut scene.broken);
    Ok((tally, broken))
}

/// Load and faults, until all of it works again.
async fn load(order: &Order, scene: &mut Scene, folder: &Path) -> Result<(), Failure> {
    if let Act::Crash(point) = order.fault.act {
        faults::arm(point, scene);
    }
    for slot in &scene.crew.workers {
        slot.want();
    }
    // What is late because no worker was there yet is nobody's fault.
    let all = scene.crew.workers.len();
    let begun = Instant::now();
    while ready(&folder.join(HISTORY))? < all && begun.elapsed() < READY {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for slot in &scene.crew.publishers {
        slot.want();
    }
    let young = match order.on {
        On::Amqp if order.fault.ends_broker => AGE,
        _ => YOUTH,
    };
    tokio::time::sleep(young).await;

    let until = Instant::now() + Duration::from_secs(order.seconds);
    let fault = || order.fault.name.to_owned();
    match order.fault.act {
        Act::Load | Act::Inside(_) => tokio::time::sleep_until(until).await,
        Act::Crash(point) => {
            scene.history.add(Event::FaultBegins { fault: fault() })?;
            while Instant::now() < until {
                faults::stir(point, scene).await?;
            }
            scene.history.add(Event::FaultEnds { fault: fault() })?;
        }
        Act::Once(_) | Act::Mix => {
            while Instant::now() < until {
                scene.pause(order.fault.rest.clone()).await;
                faults::strike(&order.fault, scene).await?;
            }
        }
    }
    scene.heal().await?;
    scene.history.add(Event::Healed)?;
    tokio::time::sleep(AFTER).await;
    Ok(())
}

/// How many workers have been ready.
fn ready(history: &Path) -> Result<usize, Failure> {
    let mut ready = BTreeSet::new();
    for record in history::read(history)? {
        let record = record?;
        if record.event == (Event::Health { ready: true }) {
            ready.insert(record.process);
        }
    }
    Ok(ready.len())
}

/// How the broken rules are named in one cell of a table.
pub(crate) fn broken_rules(report: &Report) -> String {
    let names: BTreeSet<_> = report.violations.iter().map(|v| v.rule.name()).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}
