//! Everything about one simulation that is drawn from its seed beforehand.

use std::{fmt, time::Duration};

use longshore_testing::faulty::{Fault, Plan};

use crate::{
    acts::{self, Act},
    items::{self, Item},
    random::Random,
};

/// Everything about one simulation that is drawn from its seed beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) queues: Vec<Shape>,
    /// The broker keeps neither ids nor states: they have a store of their own.
    pub(crate) apart: bool,
    pub(crate) settings: Settings,
    /// What the network and the broker do to every process.
    pub(crate) plan: Plan,
    /// Nothing is done to anybody but what an operator does on purpose.
    pub(crate) calm: bool,
    /// How many workers there are at first.
    pub(crate) processes: u64,
    /// What is published, by whom.
    pub(crate) publishers: Vec<Vec<Item>>,
    /// What is done to workers and queues, and when.
    pub(crate) acts: Vec<(Duration, Act)>,
    /// How long messages are published and faults injected.
    pub(crate) load: Duration,
}

/// What a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Its dedup window.
    pub(crate) window: Option<Duration>,
    /// Its messages are requests.
    pub(crate) asks: bool,
}

/// How a queue keeps order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// Lanes, one before the other.
    Strict,
    /// Lanes by weight.
    Weighted,
    Sessions(u16),
}

/// The settings of every worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) max_attempts: u32,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: u16,
    pub(crate) time_limit: Duration,
    pub(crate) lock: Duration,
    pub(crate) stop_deadline: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) set_aside_sessions: bool,
}

/// Where handlers publish to.
pub(crate) const DOWNSTREAM: &str = "downstream";

impl Shape {
    pub(crate) fn partitions(&self) -> u16 {
        match self.kind {
            Kind::Sessions(partitions) => partitions,
            _ => 0,
        }
    }

    pub(crate) fn has_lanes(&self) -> bool {
        matches!(self.kind, Kind::Strict | Kind::Weighted)
    }
}

impl Scenario {
    /// The one of this seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut draw = random.fork();
        let window = draw.pick(&[5, 30, 120, 600, 600, 600]);
        let window = Duration::from_secs(window);
        let queues = shapes(&mut draw, window);
        let settings = Settings {
            max_attempts: draw.within(2, 5) as u32,
            concurrency: draw.pick(&[1, 2, 4, 8, 8]),
            prefetch: draw.pick(&[1, 2, 4, 16]),
            time_limit: draw.millis(1_000, 3_000),
            lock: draw.millis(1_000, 6_000),
            stop_deadline: draw.pick(&[0, 500, 2_000, 5_000].map(Duration::from_millis)),
            backoff: (draw.millis(20, 400), draw.millis(500, 3_000)),
            set_aside_sessions: draw.chance(15),
        };
        let calm = draw.chance(12);
        let load = draw.millis(4_000, 15_000);
        let plan = match calm {
            true => Plan::calm(),
            false => plan(&mut random.fork()),
        };
        let publishers = items::draw(&mut random.fork(), &queues, load, settings.time_limit);
        let acts = acts::draw(&mut random.fork(), load, calm);
        Self {
            seed,
            queues,
            apart: draw.chance(50),
            settings,
            plan,
            calm,
            processes: draw.within(1, 3),
            publishers,
            acts,
            load,
        }
    }
}

fn shapes(draw: &mut Random, window: Duration) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |name, kind, dedup: bool, asks| {
        let window = dedup.then_some(window);
        shapes.push(Shape {
            name,
            kind,
            window,
            asks,
        });
    };
    let sessions = |draw: &mut Random| Kind::Sessions(draw.pick(&[1, 2, 4, 8]));
    let which = draw.within(1, 7);
    if which & 1 > 0 {
        let kind = draw.pick(&[Kind::Plain, Kind::Plain, Kind::Strict, Kind::Weighted]);
        add("plain", kind, draw.chance(50), false);
    }
    if which & 2 > 0 {
        let kind = sessions(draw);
        add("sessions", kind, draw.chance(40), false);
    }
    if which & 4 > 0 {
        let kind = match draw.chance(40) {
            true => sessions(draw),
            false => Kind::Plain,
        };
        add("asks", kind, draw.chance(50), true);
    }
    add(DOWNSTREAM, Kind::Plain, true, false);
    shapes
}

/// Each kind of fault is there or not, and more or less often: what many at a time would drown shows
/// where there are few.
fn plan(draw: &mut Random) -> Plan {
    let mut plan = Plan::calm();
    let likely = draw.pick(&[10, 30, 50]);
    for fault in Fault::ALL {
        let rates: &[u16] = match fault {
            Fault::Died => continue,
            Fault::Disconnect => &[2, 5, 10, 20],
            Fault::OwnershipLost | Fault::LockLost => &[5, 10, 30, 60],
            Fault::NewsLate => &[200, 500, 1000],
            _ => &[5, 20, 50, 100, 300],
        };
        let rate = draw.pick(rates);
        if draw.chance(likely) {
            plan = plan.with(*fault, rate);
        }
    }
    let slow = draw.pick(&[50, 500, 2_000, 4_000]);
    let long = draw.pick(&[300, 2_000, 6_000]);
    plan.late(Duration::from_millis(1), Duration::from_millis(slow))
        .outage(Duration::from_millis(20), Duration::from_millis(long))
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, load {:?}", self.seed, self.load)?;
        for shape in &self.queues {
            writeln!(f, "  {shape:?}")?;
        }
        let store = match self.apart {
            true => "a store of its own",
            false => "ids and states at the broker",
        };
        writeln!(f, "  {} workers, {store}", self.processes)?;
        writeln!(f, "  {:?}", self.settings)?;
        let happens = |fault: &&Fault| self.plan.rate(**fault) > 0;
        let faults: Vec<String> = Fault::ALL
            .iter()
            .filter(happens)
            .map(|fault| format!("{} {}", fault.name(), self.plan.rate(*fault)))
            .collect();
        writeln!(f, "  of a thousand: {}", faults.join(", "))?;
        for (at, act) in &self.acts {
            writeln!(f, "  {at:?}: {act:?}")?;
        }
        Ok(())
    }
}
