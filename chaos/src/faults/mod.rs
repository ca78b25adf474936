//! What is done to a run: one value for each fault, all in one table.

mod broker;
mod crashes;
mod disk;
mod locks;
mod mix;
mod network;
mod operator;
mod poison;
mod processes;

use std::ops::RangeInclusive;

pub(crate) use crashes::{arm, stir};

use futures_util::{FutureExt, future::BoxFuture};
use longshore_core::chaos::CrashPoint;
use longshore_testing::history::Event;

use crate::{
    Failure,
    interior::Inside,
    plan::{On, Plan},
    scene::Scene,
};

/// One way to break something.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Its row in the table of faults.
    pub(crate) row: &'static str,
    /// What it does, in one line.
    pub(crate) says: &'static str,
    /// Where it can be done.
    pub(crate) on: &'static [On],
    /// The load it needs, where that is not the usual one.
    pub(crate) plan: fn(&mut Plan),
    /// What it does, again and again while the load lasts.
    pub(crate) act: Act,
    /// Milliseconds between two times.
    pub(crate) rest: RangeInclusive<u64>,
    /// Whether the mix may draw it.
    pub(crate) mixes: bool,
    /// Whether it does no more than end processes.
    pub(crate) only_ends_processes: bool,
    /// Whether it may end the broker: queues are given 5 s of age before, because a young quorum
    /// queue may not survive that.
    pub(crate) ends_broker: bool,
    /// How much must have happened for a run of 30 s to count.
    pub(crate) evidence: Evidence,
}

/// Breaks something once, for a while, and mends it.
pub(crate) type Once = for<'a> fn(&'a mut Scene) -> BoxFuture<'a, Result<(), Failure>>;

/// Breaks something once inside one process.
pub(crate) type InsideOnce = for<'a> fn(&'a mut Inside) -> BoxFuture<'a, Result<(), Failure>>;

/// What a fault does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Nothing: the load is the fault.
    Load,
    /// Breaks something once, for a while, and mends it.
    Once(Once),
    /// The same inside one process.
    Inside(InsideOnce),
    /// Processes that pass this point die there.
    Crash(CrashPoint),
    /// One of the others after the other.
    Mix,
}

/// How much must have happened for a run of 30 s to count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Evidence {
    /// Times the fault was seen to do something.
    pub(crate) strikes: u64,
    /// Processes killed.
    pub(crate) kills: u64,
    /// Processes that died at a crash point.
    pub(crate) crashes: u64,
    /// Processes that a message took with it.
    pub(crate) aborts: u64,
    /// Processes stopped by SIGTERM.
    pub(crate) stops: u64,
    /// Starts after the first of a message.
    pub(crate) redeliveries: u64,
    /// Publishes nobody could answer.
    pub(crate) unknown: u64,
    /// Partitions that came to another owner.
    pub(crate) owner_changes: u64,
}

impl Fault {
    /// A fault that needs nothing special.
    pub(crate) const fn new(
        name: &'static str,
        row: &'static str,
        says: &'static str,
        act: Act,
    ) -> Self {
        Self {
            name,
            row,
            says,
            on: On::SERVERS,
            plan: |_| {},
            act,
            rest: 200..=3_000,
            mixes: true,
            only_ends_processes: false,
            ends_broker: false,
            evidence: Evidence {
                strikes: 0,
                kills: 0,
                crashes: 0,
                aborts: 0,
                stops: 0,
                redeliveries: 0,
                unknown: 0,
                owner_changes: 0,
            },
        }
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let none = Fault {
        on: On::ALL,
        mixes: false,
        ..Fault::new("none", "-", "nothing but bad messages", Act::Load)
    };
    let mix = Fault {
        mixes: false,
        ends_broker: true,
        rest: 2_000..=6_000,
        evidence: mix::EVIDENCE,
        ..Fault::new(
            "mix",
            "40",
            "one fault after the other, drawn from all",
            Act::Mix,
        )
    };
    let families = [
        processes::all(),
        poison::all(),
        locks::all(),
        crashes::all(),
        network::all(),
        broker::all(),
        operator::all(),
        disk::all(),
    ];
    let others = families.into_iter().flatten();
    [none, mix].into_iter().chain(others).collect()
}

/// Breaks something once, for a while, and mends it; the history has it by its name.
///
/// # Errors
/// What keeps it from being broken or mended.
pub(crate) fn strike<'a>(
    fault: &'a Fault,
    scene: &'a mut Scene,
) -> BoxFuture<'a, Result<(), Failure>> {
    let name = || fault.name.to_owned();
    let broken = async move {
        match fault.act {
            Act::Load | Act::Inside(_) => return Ok(()),
            // Its faults are struck one by one.
            Act::Mix => return mix::strike(scene).await,
            Act::Once(_) | Act::Crash(_) => {}
        }
        scene.history.add(Event::FaultBegins { fault: name() })?;
        match fault.act {
            Act::Once(act) => act(scene).await?,
            Act::Crash(point) => crashes::strike(point, scene).await?,
            Act::Load | Act::Mix | Act::Inside(_) => {}
        }
        Ok(scene.history.add(Event::FaultEnds { fault: name() })?)
    };
    broken.boxed()
}
