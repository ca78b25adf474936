//! What is printed.

use crate::{
    order::Order,
    run::{Outcome, broken_rules},
};
use longshore_testing::checker::Verdict;

const MOST: usize = 10;

/// Prints the head of the table.
pub(crate) fn head() {
    println!(
        "{:6} {:26} {:>6} {:>4} {:>7} {:>7} {:>6} {:>7} {:>6} {:>5} {:>5} {:>6} {:>7} {:>7} {:>6} verdict",
        "broker",
        "fault",
        "seed",
        "s",
        "publ.",
        "conf.",
        "unkn.",
        "starts",
        "again",
        "dead",
        "died",
        "owners",
        "recov.",
        "drain",
        "stalls"
    );
}

/// Prints one run.
pub(crate) fn row(order: &Order, outcome: &Outcome) {
    let figures = &outcome.report.figures;
    let drain = figures.drain.map_or("-".to_owned(), |drain| {
        format!("{:.1}", drain.as_secs_f64())
    });
    let died = outcome.tally.kills + outcome.tally.crashes + outcome.tally.aborts;
    let verdict = match outcome.verdict() {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Invalid => format!("INVALID: {}", outcome.report.missing.join(", ")),
        Verdict::Failed => format!("FAILED: {}", broken_rules(&outcome.report)),
    };
    println!(
        "{:6} {:26} {:>6} {:>4.0} {:>7} {:>7} {:>6} {:>7} {:>6} {:>5} {:>5} {:>6} {:>7.1} {:>7} {:>6} {verdict}",
        order.on.name(),
        order.fault.name,
        order.seed,
        outcome.took.as_secs_f64(),
        figures.published,
        figures.confirmed,
        figures.unknown,
        figures.starts,
        figures.redeliveries,
        figures.dead,
        died,
        figures.owner_changes,
        figures.recovery.as_secs_f64(),
        drain,
        outcome.tally.stalls,
    );
}

/// Prints what was wrong with a run, and how to run it again.
pub(crate) fn why(order: &Order, outcome: &Outcome) {
    for broken in outcome.broken.iter().take(MOST) {
        println!("  {broken}");
    }
    let violations = &outcome.report.violations;
    for violation in violations.iter().take(MOST) {
        println!("  {violation}");
    }
    let more = violations.len().saturating_sub(MOST) as u64 + outcome.report.unlisted;
    if more > 0 {
        println!("  and {more} more");
    }
    println!("  history: {}", outcome.folder.display());
    println!(
        "  again: cargo xtask chaos --broker {} --fault {} --seconds {} --seed {} --workers {}",
        order.on.name(),
        order.fault.name,
        order.seconds,
        order.seed,
        order.workers
    );
}
