//! Each rule: the smallest history that breaks it and it alone, beside the nearest that breaks none.

mod account;
mod copies;
mod dead;
mod ids;
mod notation;
mod processes;
mod sessions;
mod size;

use super::*;
use notation::records;

/// What a history says under these rules.
fn report_of(rules: Rules, history: &str) -> Report {
    let mut checker = Checker::new(rules);
    for record in records(history) {
        checker.observe(&record);
    }
    checker.finish()
}

/// Asserts that these rules are broken, and no others.
#[track_caller]
fn judged(rules: &Rules, history: &str, broken: &[Rule]) {
    let report = report_of(rules.clone(), history);
    let mut found: Vec<Rule> = report.violations.iter().map(|v| v.rule).collect();
    found.sort();
    found.dedup();
    let shown: Vec<String> = report.violations.iter().map(Violation::to_string).collect();
    assert_eq!(found, broken, "{history}\n{}", shown.join("\n"));
}

/// Asserts that a history breaks nothing.
#[track_caller]
fn legal(history: &str) {
    judged(&Rules::default(), history, &[]);
}

/// Asserts that a history breaks this rule alone.
#[track_caller]
fn illegal(rule: Rule, history: &str) {
    judged(&Rules::default(), history, &[rule]);
}

#[test]
fn a_violation_wins_over_missing_evidence_and_missing_evidence_over_a_pass() {
    let wanting = Rules {
        evidence: Evidence {
            faults: 1,
            redeliveries: 1,
            unknown: 1,
            owner_changes: 1,
            kills: 1,
            drained: true,
        },
        ..Rules::default()
    };
    let lacking = report_of(wanting.clone(), "pub 1, ok 1, run 1 1");
    assert_eq!(lacking.missing.len(), 6, "{:?}", lacking.missing);
    assert_eq!(lacking.verdict(), Verdict::Invalid);
    let broken = report_of(wanting.clone(), "pub 1, ok 1, start 1 6, drained");
    assert!(!broken.missing.is_empty());
    assert_eq!(broken.verdict(), Verdict::Failed);
    let enough = "fault x, pub 1, unknown 1, owns a 1, #8 owns a 2, start 1 1, kill 9, #8 run 1 2, \
                  fixed x, healed, drained";
    let enough = report_of(wanting, enough);
    assert_eq!(enough.missing, Vec::<String>::new());
    assert_eq!(enough.verdict(), Verdict::Passed, "{:?}", enough.violations);
}

#[test]
fn a_violation_shows_its_lines_of_the_history() {
    let history = "pub 7 key=3:4 wait=2000 fail=2, ok 7, @1000 start 7 1 token=2, end 7 1 failed";
    let report = report_of(Rules::default(), history);
    let written = records(history);
    let violation = &report.violations[0];
    assert_eq!(violation.records, [written[0].clone(), written[2].clone()]);
    let shown = violation.to_string();
    assert!(shown.starts_with("early: message 7 starts 1"), "{shown}");
    assert_eq!(shown.lines().count(), 3, "{shown}");
}
