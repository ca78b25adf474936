//! Judges a history: which promises were broken.
//!
//! A [`Checker`] looks at one [`Record`] after the other, in the order of the history, and keeps a
//! bounded state for each message, session and id. [`Checker::finish`] gives the [`Report`].
//!
//! A time-out is unknown, never failed: what a publish with an unknown answer became of is nobody's
//! fault. What a history cannot show to be wrong is not a violation.

mod report;
mod rules;

pub use report::{Figures, Report, Rule, Verdict, Violation};
pub use rules::{Evidence, Rules};

use crate::history::Record;

/// Looks at a history, line by line.
#[derive(Debug)]
pub struct Checker {
    rules: Rules,
    report: Report,
}

impl Checker {
    /// Has seen nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            report: Report::default(),
        }
    }

    /// Looks at the next line.
    pub fn observe(&mut self, record: &Record) {
        let _ = (&self.rules, record);
    }

    /// There are no more lines.
    pub fn finish(mut self) -> Report {
        // Until the rules are here, no run counts.
        self.report.missing.push("a judge".to_owned());
        self.report
    }
}
