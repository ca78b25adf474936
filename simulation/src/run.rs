//! One simulation, from its seed to its verdict.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use longshore::{Result, Text};
use longshore_core::{Part, partition_of};
use longshore_testing::{
    checker::{Checker, Evidence, Figures, Rules, Violation},
    faulty::Fault,
    history::{Event, Record},
};
use tokio::time::Instant;

use crate::{
    catalogue,
    crew::Crew,
    load, operator, quiet,
    scenario::Scenario,
    witness::States,
    world::{FIRST_PUBLISHER, World},
};

/// From the end of all faults until everything has to be done, in simulated time.
const DRAIN: Duration = Duration::from_secs(300);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(250);

/// What one simulation has come to.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was drawn from the seed.
    pub scenario: String,
    /// The complete history.
    pub records: Vec<Record>,
    /// The promises that were broken, as the checker found them.
    pub violations: Vec<Violation>,
    /// What else is wrong.
    pub wrongs: Vec<String>,
    /// Why it does not count; empty where it does.
    pub missing: Vec<String>,
    /// What the checker counted.
    pub figures: Figures,
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Outcome {
    /// Whether a promise was broken.
    pub fn has_failed(&self) -> bool {
        !self.violations.is_empty() || !self.wrongs.is_empty()
    }

    /// Equal for equal histories.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for record in &self.records {
            format!("{record:?}").hash(&mut hasher);
        }
        self.faults.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Display for Outcome {
    /// What is wrong, with the lines of the history that show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        for wrong in &self.wrongs {
            write!(f, "\n  {wrong}")?;
        }
        Ok(())
    }
}

/// Runs the simulation of this seed on a thread of its own time.
///
/// # Errors
/// The runtime could not be built, or the first declaration of the queues failed.
pub fn run(seed: u64) -> std::result::Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    quiet::hush();
    let mut outcome = runtime.block_on(simulate(Scenario::draw(seed)))?;
    drop(runtime);
    let panics = quiet::take().into_iter();
    let panicked = |what| format!("a panic that no handler was told to have: {what}");
    outcome.wrongs.extend(panics.map(panicked));
    Ok(outcome)
}

async fn simulate(scenario: Scenario) -> Result<Outcome> {
    let (seed, shown) = (scenario.seed, scenario.to_string());
    let world = World::new(scenario).await?;
    let crew = Crew::begin(&world);
    let swarm = || "swarm".to_owned();
    if !world.scenario.calm {
        world.diary.add(0, Event::FaultBegins { fault: swarm() });
    }
    let publishers: Vec<_> = (FIRST_PUBLISHER..)
        .zip(&world.scenario.publishers)
        .map(|(process, items)| {
            tokio::spawn(load::publish(Arc::clone(&world), process, items.clone()))
        })
        .collect();
    let keeping = tokio::spawn(Arc::clone(&crew).keep());
    Arc::clone(&crew).act().await;
    world.heal();
    if !world.scenario.calm {
        world.diary.add(0, Event::FaultEnds { fault: swarm() });
    }
    world.diary.add(0, Event::Healed);
    crew.resume();
    let published = async {
        for publisher in publishers {
            let _ = publisher.await;
        }
    };
    let drained = tokio::time::timeout(DRAIN, async {
        published.await;
        drain(&world).await
    });
    match drained.await {
        Ok(()) => world.diary.add(0, Event::Drained),
        Err(_) => {
            let left = left(&world).await;
            world
                .witness
                .wrong(format!("not done {DRAIN:?} after the last fault: {left}"));
        }
    }
    keeping.abort();
    operator::read_dead(&world).await;
    let states = states(&world).await;
    stop(&world, &crew).await;
    let records = world.diary.take();
    let faults = faults(&world);
    let mut checker = Checker::new(rules(&world.scenario, &faults));
    records.iter().for_each(|record| checker.observe(record));
    let report = checker.finish();
    let wrongs = world.witness.finish(&world.catalogue, &records, &states);
    Ok(Outcome {
        seed,
        scenario: shown,
        records,
        violations: report.violations,
        wrongs,
        missing: report.missing,
        figures: report.figures,
        faults,
    })
}

fn rules(scenario: &Scenario, faults: &BTreeMap<&'static str, u64>) -> Rules {
    // A start that was noted, and of which the answer was lost, counts when the lock is lost as well:
    // to the broker that is the death of a handler.
    let unanswered = faults.get(Fault::StartUnanswered.name());
    let unanswered = unanswered.map_or(0, |times| u32::try_from(*times).unwrap_or(u32::MAX));
    let windows = scenario.queues.iter().filter_map(|shape| shape.window);
    Rules {
        max_attempts: scenario.settings.max_attempts,
        stolen_attempts: Rules::default().stolen_attempts.saturating_add(unanswered),
        dedup_window: windows.max().unwrap_or(Duration::from_secs(600)),
        // A late message waits for a handler as any other does.
        lateness: None,
        recover_within: None,
        drain_within: DRAIN + LOOK,
        evidence: Evidence {
            drained: true,
            ..Evidence::default()
        },
        ..Rules::default()
    }
}

/// Waits until nothing is queued, delayed or in flight, and nothing more will come.
async fn drain(world: &Arc<World>) {
    loop {
        let (mut there, mut known) = (0, true);
        for queue in &world.queues {
            match world.observer.stats(queue).await {
                Ok(stats) => {
                    let more = stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0);
                    there += stats.ready + more;
                }
                Err(_) => known = false,
            }
        }
        let coming = world
            .all_faults()
            .iter()
            .filter(|f| !f.is_dead())
            .map(|f| f.pending())
            .sum::<usize>();
        if known && there == 0 && coming == 0 {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn left(world: &World) -> String {
    let mut left = Vec::new();
    for queue in &world.queues {
        let stats = world.observer.stats(queue).await;
        left.push(format!("{}: {stats:?}", queue.name()));
    }
    let coming: usize = world.all_faults().iter().map(|f| f.pending()).sum();
    format!("{}, {coming} to come", left.join(", "))
}

/// The last state of every session.
async fn states(world: &World) -> States {
    let mut states = States::new();
    let Some(store) = world.store() else {
        return states;
    };
    for (at, (queue, shape)) in world.queues.iter().zip(&world.scenario.queues).enumerate() {
        let Some(topology) = operator::topology(queue, shape).filter(|t| t.partitions > 0) else {
            continue;
        };
        let of = topology.partitions;
        for key in operator::keys(world, shape) {
            let text = catalogue::key(key);
            let index = partition_of(&text, of);
            let scope = topology.scope(Part::Partition { index, of });
            let loaded = store.load(&scope, &text, &Text::new()).await;
            let state = loaded.ok().and_then(|session| session.state);
            let list = state.map_or(Ok(Vec::new()), |state| serde_json::from_slice(&state));
            match list {
                Ok(list) => drop(states.insert((at, key), list)),
                Err(error) => world
                    .witness
                    .wrong(format!("the state of session {key} is none: {error}")),
            }
        }
    }
    states
}

/// Everybody stops, in the time they have.
async fn stop(world: &World, crew: &Crew) {
    let begun = Instant::now();
    let most = world.scenario.settings.stop_deadline + Duration::from_secs(60);
    if tokio::time::timeout(most, crew.leave()).await.is_err() {
        let took = begun.elapsed();
        world
            .witness
            .wrong(format!("a worker has not stopped after {took:?}"));
    }
}

fn faults(world: &World) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for faults in world.all_faults() {
        for fault in Fault::ALL {
            *counts.entry(fault.name()).or_default() += faults.count(*fault);
        }
    }
    counts
}
