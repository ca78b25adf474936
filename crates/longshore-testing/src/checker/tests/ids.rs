//! Dedup windows of ten minutes.

use super::*;

/// Two messages of one id, the second one after the first was completed, both confirmed.
const TWO: &str = "pub 1 id=7, ok 1, run 1 1, pub 2 id=7, ok 2";

#[test]
fn an_id_that_was_completed_does_not_start_again_in_its_window() {
    legal(&format!("{TWO}, drained"));
    illegal(Rule::Dedup, &format!("{TWO}, run 2 1, drained"));
    illegal(Rule::Dedup, &format!("{TWO}, @600000 run 2 1, drained"));
    legal(&format!("{TWO}, @600100 run 2 1, drained"));
    // Queue and key are part of it.
    legal(&format!("{TWO}, run 2 1, drained").replace("2 id=7", "2 id=7 queue=b"));
    legal(
        "pub 1 id=7 key=1:0, ok 1, pub 2 id=7 key=2:0, ok 2, run 1 1 token=1, run 2 1 token=1, drained",
    );
    illegal(
        Rule::Dedup,
        "pub 1 id=7 key=1:0, ok 1, pub 2 id=7 key=1:1, ok 2, run 1 1 token=1, run 2 1 token=1, drained",
    );
    // The same message, published again.
    illegal(
        Rule::Dedup,
        "pub 1 id=7, unknown 1, pub 1 id=7, ok 1, run 1 1, run 1 1, drained",
    );
    legal("pub 1 id=7, unknown 1, pub 1 id=7, ok 1, run 1 1, drained");
    legal("pub 1 id=7, unknown 1, pub 1 id=7, duplicate 1, run 1 1, drained");
}

#[test]
fn what_was_not_settled_runs_again() {
    legal("pub 1 id=7, ok 1, run 1 1, kill 9, #8 run 1 2, drained");
    legal("pub 1 id=7, ok 1, start 1 1, effect 1, kill 9, #8 run 1 2, drained");
    legal("pub 1 id=7, ok 1, fault cut, run 1 1, fixed cut, #8 run 1 2, drained");
    legal("pub 1 id=7 fail=1, ok 1, start 1 1, effect 1, end 1 1 failed, run 1 2, drained");
    // That crash has been used.
    illegal(
        Rule::Dedup,
        "pub 1 id=7, ok 1, run 1 1, kill 9, #8 run 1 2, #8 run 1 3, drained",
    );
}

#[test]
fn two_copies_never_run_at_the_same_time() {
    let two = "pub 1 id=7, ok 1, pub 2 id=7, ok 2, start 1 1, #8 start 2 1";
    illegal(
        Rule::Overlap,
        &format!("{two}, end 1 1 failed, #8 end 2 1 succeeded, drained"),
    );
    legal(&format!("{two}, kill 9, #8 end 2 1 succeeded, drained"));
    // One that was redriven runs whatever the window says.
    let refused = "pub 1 id=7 refuse, ok 1, start 1 1, end 1 1 refused, pub 2 id=7, ok 2";
    legal(&format!(
        "{refused}, redriven 1, start 1 1, #8 start 2 1, end 1 1 refused, dead 1 permanent 1, \
         #8 end 2 1 succeeded, drained"
    ));
    legal(
        "pub 1 id=7, ok 1, pub 2 id=7, ok 2, fault store, start 1 1, #8 start 2 1, end 1 1 cancelled, \
         #8 end 2 1 succeeded, drained",
    );
}

#[test]
fn nothing_is_suppressed_by_what_was_not_completed() {
    illegal(Rule::Lost, "pub 1 id=7, ok 1, start 1 1, kill 9, drained");
    // The first was dead, so its id was free.
    let dead = "pub 1 id=7 refuse, ok 1, pub 2 id=7, ok 2, start 1 1, end 1 1 refused, \
                dead 1 permanent 1";
    illegal(Rule::Lost, &format!("{dead}, drained"));
    legal(&format!("{dead}, run 2 1, drained"));
    // The window was over when the second was published.
    let later = TWO.replace("pub 2", "@603000 pub 2");
    illegal(Rule::Lost, &format!("{later}, drained"));
    legal(&format!("{later}, run 2 1, drained"));
}

#[test]
fn a_duplicate_is_one_of_something() {
    let duplicate = TWO.replace("ok 2", "duplicate 2");
    legal(&format!("{duplicate}, drained"));
    illegal(Rule::Suppressed, "pub 2 id=7, duplicate 2, drained");
    illegal(
        Rule::Suppressed,
        &format!("{duplicate}, drained").replace("pub 2", "@603000 pub 2"),
    );
    // It was running, and became a dead letter later; or is queued still.
    legal("pub 1 id=7 unprocessable, ok 1, pub 2 id=7, duplicate 2, dead 1 hostile 0, drained");
    legal("pub 1 id=7, ok 1, pub 2 id=7, duplicate 2, left 1");
}

#[test]
fn what_is_redriven_runs_whatever_the_window_says() {
    legal(
        "pub 1 id=7 refuse, ok 1, start 1 1, end 1 1 refused, pub 2 id=7, ok 2, run 2 1, redriven 1, \
         run 1 1, drained",
    );
    let both = "pub 1 id=7 refuse, ok 1, start 1 1, end 1 1 refused, pub 2 id=7 refuse, ok 2, start 2 1, \
                end 2 1 refused";
    let together = "start 1 1, start 2 1, end 1 1 refused, dead 1 permanent 1, end 2 1 refused, \
                    dead 2 permanent 1, drained";
    legal(&format!("{both}, redriven 1, redriven 2, {together}"));
}
