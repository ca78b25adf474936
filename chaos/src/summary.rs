//! Many runs of one fault in one row.

use longshore_testing::checker::Verdict;

use crate::{order::Order, run::Outcome};

/// Many runs of one fault in one row.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    broker: &'static str,
    fault: &'static str,
    passed: u64,
    invalid: u64,
    failed: u64,
    died: u64,
    stops: u64,
    published: u64,
    starts: u64,
    redeliveries: u64,
    unknown: u64,
    owner_changes: u64,
}

impl Summary {
    /// Counts a run.
    pub(crate) fn add(&mut self, order: &Order, outcome: &Outcome) {
        let (broker, fault) = (order.on.name(), order.fault.name);
        let same = |row: &Row| (row.broker, row.fault) == (broker, fault);
        if !self.rows.last().is_some_and(same) {
            self.rows.push(Row {
                broker,
                fault,
                ..Row::default()
            });
        }
        let Some(row) = self.rows.last_mut() else {
            return;
        };
        let (figures, tally) = (&outcome.report.figures, &outcome.tally);
        match outcome.verdict() {
            Verdict::Passed => row.passed += 1,
            Verdict::Invalid => row.invalid += 1,
            Verdict::Failed => row.failed += 1,
        }
        row.died += tally.kills + tally.crashes + tally.aborts;
        row.stops += tally.stops;
        row.published += figures.published;
        row.starts += figures.starts;
        row.redeliveries += figures.redeliveries;
        row.unknown += figures.unknown;
        row.owner_changes += figures.owner_changes;
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        println!(
            "\n{:6} {:26} {:>5} {:>6} {:>7} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>7} {:>7}",
            "broker",
            "fault",
            "runs",
            "passed",
            "invalid",
            "failed",
            "died",
            "stops",
            "publ.",
            "starts",
            "again",
            "unkn.",
            "owners"
        );
        for row in &self.rows {
            println!(
                "{:6} {:26} {:>5} {:>6} {:>7} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>7} {:>7}",
                row.broker,
                row.fault,
                row.passed + row.invalid + row.failed,
                row.passed,
                row.invalid,
                row.failed,
                row.died,
                row.stops,
                row.published,
                row.starts,
                row.redeliveries,
                row.unknown,
                row.owner_changes
            );
        }
    }
}
