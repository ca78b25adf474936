//! One run as a line for programs.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, path::Path};

use longshore_testing::checker::Verdict;
use serde_json::json;

use crate::{Failure, order::Order, run::Outcome};

/// Adds it to a file.
///
/// # Errors
/// What the file system says.
pub(crate) fn add(file: &Path, order: &Order, outcome: &Outcome) -> Result<(), Failure> {
    let (figures, tally) = (&outcome.report.figures, &outcome.tally);
    let mut broken: BTreeMap<&str, u64> = BTreeMap::new();
    for violation in &outcome.report.violations {
        *broken.entry(violation.rule.name()).or_default() += 1;
    }
    let line = json!({
        "broker": order.on.name(),
        "fault": order.fault.name,
        "row": order.fault.row,
        "seed": order.seed,
        "seconds": order.seconds,
        "workers": order.workers,
        "verdict": verdict(outcome.verdict()),
        "broken": broken,
        "other": outcome.broken,
        "missing": outcome.report.missing,
        "took": outcome.took.as_secs_f64(),
        "kills": tally.kills,
        "crashes": tally.crashes,
        "aborts": tally.aborts,
        "stops": tally.stops,
        "stalls": tally.stalls,
        "faults": figures.faults,
        "published": figures.published,
        "confirmed": figures.confirmed,
        "unknown": figures.unknown,
        "refused": figures.refused,
        "duplicates": figures.duplicates,
        "starts": figures.starts,
        "redeliveries": figures.redeliveries,
        "effects": figures.effects,
        "stale_effects": figures.stale_effects,
        "dead": figures.dead,
        "copies": figures.copies,
        "owner_changes": figures.owner_changes,
        "lateness_p99": figures.lateness_p99.as_secs_f64(),
        "lateness_max": figures.lateness_max.as_secs_f64(),
        "recovery": figures.recovery.as_secs_f64(),
        "drain": figures.drain.map(|drain| drain.as_secs_f64()),
        "memory": figures.memory,
    });
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{line}")?;
    Ok(())
}

/// How a verdict is called.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Invalid => "invalid",
    }
}
