//! What a run must keep, and what it must have seen.

use std::{path::Path, time::Duration};

use longshore_testing::{
    checker::{Checker, Report, Rules},
    history::read,
};

use crate::{
    Failure, faults, hindsight,
    order::Order,
    plan::{On, Plan},
    slot::Tally,
};

/// How long what is due may wait for a free handler: every worker has a backlog.
const BUSY: Duration = Duration::from_secs(2);
/// A run of so many seconds must show the whole evidence of its fault.
const WHOLE: u64 = 30;

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
    Rules {
        lateness,
        max_attempts: plan.max_attempts,
        dedup_window: plan.window,
        memory: Some(plan.memory),
        processes_only: only.map(|fault| fault.name.to_owned()).collect(),
        ..broker
    }
}

/// Looks at the history of a run.
///
/// # Errors
/// It cannot be read.
pub(crate) fn judge(
    order: &Order,
    plan: &Plan,
    tally: &Tally,
    history: &Path,
) -> Result<Report, Failure> {
    let mut checker = Checker::new(rules(order, plan));
    for record in read(history)? {
        checker.observe(&record?);
    }
    let mut report = checker.finish();
    hindsight::states(plan, history, &mut report)?;
    lacking(order, tally, &mut report);
    Ok(report)
}

/// What the run should have seen and did not.
fn lacking(order: &Order, tally: &Tally, report: &mut Report) {
    let wanted = order.fault.evidence;
    let figures = report.figures.clone();
    let all = [
        ("strikes", wanted.strikes, tally.strikes),
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
