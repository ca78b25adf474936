//! Seeds as an ordinary test: that all promises hold, and that a seed is one history.

#![allow(clippy::expect_used)]

use longshore_simulation::{Run, Tally, run, run_all};

#[test]
fn every_promise_is_kept_in_two_hundred_histories() {
    let mut tally = Tally::default();
    run_all(0..200, 2, |run| tally.add(run));
    assert!(tally.has_passed(), "{tally}");
}

#[test]
fn one_seed_is_one_history_whatever_runs_beside_it() {
    let mut hashes = Vec::new();
    run_all(0..50, 2, |run| match run {
        Run::Over(outcome) => hashes.push((outcome.seed, outcome.hash())),
        other => panic!("{other:?}"),
    });
    hashes.sort_unstable();
    assert_eq!(hashes.len(), 50);
    for (seed, hash) in hashes {
        let again = run(seed).expect("it ran before");
        assert!(again.records.len() > 20, "seed {seed} has hardly a history");
        assert_eq!(again.hash(), hash, "seed {seed} has two histories");
    }
}
