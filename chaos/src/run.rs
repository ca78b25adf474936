//! One run: load and faults, heal, drain, check.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use longshore_core::chaos::CrashPoint;
use longshore_testing::{
    checker::{Checker, Report, Rule, Rules, Verdict},
    history::{self, Event, Recorder},
};
use tokio::time::Instant;

use crate::{
    Failure,
    crew::Tally,
    drain,
    faults::{self, Act, Fault},
    hindsight,
    plan::{HISTORY, On, Plan},
    scene::Scene,
};

/// How old the queues of a RabbitMQ are at least when it is ended for the first time.
const AGE: Duration = Duration::from_secs(5);
/// How old they are otherwise.
const YOUTH: Duration = Duration::from_secs(2);
/// How long the workers may take to be there. Those that die at a crash point may never be.
const READY: Duration = Duration::from_secs(10);
/// How much later than promised a message may start: this machine does everything at once.
const BUSY: Duration = Duration::from_secs(1);
/// How long is published on after the last fault.
const AFTER: Duration = Duration::from_secs(4);
/// A run of so many seconds must show the whole evidence of its fault.
const WHOLE: u64 = 30;

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// On which broker.
    pub(crate) on: On,
    /// What is broken.
    pub(crate) fault: Fault,
    /// For how many seconds.
    pub(crate) seconds: u64,
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// How many workers there are.
    pub(crate) workers: usize,
}

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
    let history = Arc::new(Recorder::open(folder.join(HISTORY))?);
    let mut plan = Plan::new(order.seed, order.on, order.workers);
    (order.fault.plan)(&mut plan);

    let mut scene = Scene::open(plan, folder, history).await?;
    let mut broken = Vec::new();
    load(order, &mut scene, folder).await?;
    for slot in &scene.crew.publishers {
        slot.stop(Duration::from_secs(30)).await?;
    }
    if let Err(left) = drain::emptied(&scene).await {
        broken.push(left);
    } else {
        drain::dead_letters(&scene.client, &scene.plan, &scene.history).await?;
        hindsight::follow_ups(&scene.plan, &folder.join(HISTORY), &scene.history)?;
        scene.history.add(Event::Drained)?;
    }
    for slot in &scene.crew.workers {
        let patience = scene.plan.stop_deadline + Duration::from_secs(10);
        if let Err(late) = slot.stop(patience).await {
            broken.push(late.to_string());
            slot.kill()?;
        }
    }
    let (tally, strikes) = (scene.crew.tally(), scene.strikes);
    broken.extend(tally.unexpected.iter().cloned());
    let plan = scene.plan.clone();
    drop(scene);
    let mut report = judge(rules(order, &plan), &folder.join(HISTORY))?;
    hindsight::states(&plan, &folder.join(HISTORY), &mut report)?;
    lacking(order, strikes, &tally, &mut report);
    Ok(Outcome {
        report,
        tally,
        broken,
        took: begun.elapsed(),
        folder: folder.to_owned(),
    })
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
        Act::Load => tokio::time::sleep_until(until).await,
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

/// What must hold.
fn rules(order: &Order, plan: &Plan) -> Rules {
    let broker = match order.on {
        On::Amqp => Rules::rabbitmq(),
        On::Redis | On::Memory => Rules::default(),
    };
    let only = faults::all()
        .into_iter()
        .filter(|fault| fault.only_ends_processes);
    let lateness = broker.lateness.map(|lateness| lateness + BUSY);
    // One more than of a message that only waits: what was about to start when its process died was
    // noted, and is not known to have started. There it happens again and again.
    let stolen_attempts = match order.fault.act {
        Act::Crash(CrashPoint::StartNoted) => plan.max_attempts,
        _ => broker.stolen_attempts + 1,
    };
    Rules {
        lateness,
        stolen_attempts,
        max_attempts: plan.max_attempts,
        dedup_window: plan.window,
        memory: Some(plan.memory),
        processes_only: only.map(|fault| fault.name.to_owned()).collect(),
        ..broker
    }
}

fn judge(rules: Rules, history: &Path) -> Result<Report, Failure> {
    let mut checker = Checker::new(rules);
    for record in history::read(history)? {
        checker.observe(&record?);
    }
    Ok(checker.finish())
}

/// What the run should have seen and did not.
fn lacking(order: &Order, strikes: u64, tally: &Tally, report: &mut Report) {
    let wanted = order.fault.evidence;
    let figures = report.figures.clone();
    let all = [
        ("strikes", wanted.strikes, strikes),
        ("kills", wanted.kills, tally.kills),
        ("deaths at the crash point", wanted.crashes, tally.crashes),
        ("aborts", wanted.aborts, tally.aborts),
        ("stops", wanted.stops, tally.stops),
        ("redeliveries", wanted.redeliveries, figures.redeliveries),
        ("unknown publishes", wanted.unknown, figures.unknown),
        (
            "changes of owner",
            wanted.owner_changes,
            figures.owner_changes,
        ),
    ];
    for (what, wanted, seen) in all {
        let wanted = (wanted * order.seconds).div_ceil(WHOLE);
        if seen < wanted {
            report.missing.push(format!("{what}: {seen} of {wanted}"));
        }
    }
}

/// How the broken rules are named in one cell of a table.
pub(crate) fn broken_rules(report: &Report) -> String {
    let mut rules: Vec<Rule> = report.violations.iter().map(|v| v.rule).collect();
    rules.dedup();
    let names: std::collections::BTreeSet<_> = rules.iter().map(|rule| rule.name()).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}
