//! Attempts, repetitions and overlaps of messages outside sessions and windows; delays.

use super::*;

#[test]
fn a_message_starts_at_most_so_often_and_no_number_repeats() {
    let failing = "start 1 1, end 1 1 failed, start 1 2, end 1 2 failed, start 1 3, end 1 3 failed, \
                   start 1 4, end 1 4 failed, start 1 5, end 1 5 failed";
    legal(&format!(
        "pub 1 always, ok 1, {failing}, dead 1 exhausted 5, drained"
    ));
    illegal(
        Rule::Attempts,
        &format!(
            "pub 1 always, ok 1, {failing}, start 1 6, end 1 6 failed, dead 1 exhausted 5, drained"
        ),
    );
    illegal(
        Rule::Attempts,
        "pub 1, ok 1, start 1 1, end 1 1 failed, run 1 1, drained",
    );
    illegal(
        Rule::Attempts,
        "pub 1, ok 1, start 1 2, end 1 2 failed, run 1 1, drained",
    );
    illegal(
        Rule::Attempts,
        "pub 1, ok 1, start 1 0, end 1 0 failed, run 1 1, drained",
    );
}

#[test]
fn under_a_fault_attempts_may_fall_but_never_repeat() {
    // What a half-open connection still holds starts after what was delivered again.
    let fault = "pub 1, ok 1, fault cut, #8 start 1 2, start 1 1";
    legal(&format!(
        "{fault}, #8 end 1 2 succeeded, end 1 1 cancelled, fixed cut, drained"
    ));
    illegal(
        Rule::Attempts,
        "pub 1, ok 1, fault cut, #8 start 1 1, start 1 1, end 1 1 cancelled, #8 end 1 1 succeeded, drained",
    );
}

#[test]
fn every_publish_that_may_have_happened_and_every_redrive_has_its_own_attempts() {
    let twice = "start 1 1, #8 start 1 1, end 1 1 succeeded, #8 end 1 1 succeeded, drained";
    legal(&format!("pub 1, unknown 1, pub 1, ok 1, {twice}"));
    // Not known yet, so it may.
    legal(&format!("pub 1, ok 1, pub 1, {twice}"));
    judged(
        &Rules::default(),
        &format!("pub 1, refused 1, pub 1, ok 1, {twice}"),
        &[Rule::Overlap, Rule::Attempts],
    );
    let refused = "pub 1 refuse, ok 1, start 1 1, end 1 1 refused, redriven 1";
    let again = "end 1 1 refused, dead 1 permanent 1, drained";
    legal(&format!("{refused}, start 1 1, {again}"));
    illegal(
        Rule::Attempts,
        &format!("{refused}, start 1 3, end 1 3 refused, dead 1 permanent 3, drained"),
    );
    illegal(
        Rule::Lost,
        &format!("{refused}, start 1 1, end 1 1 refused, drained"),
    );
    legal(&format!("{refused}, dead 1 permanent 1, drained"));
}

#[test]
fn a_redrive_that_was_killed_leaves_a_copy_that_runs_beside_the_next() {
    let again = |killed: &str| {
        format!(
            "pub 1 always, ok 1, start 1 1, end 1 1 failed, start 1 2, end 1 2 failed, start 1 3, \
             end 1 3 failed, start 1 4, end 1 4 failed, start 1 5, end 1 5 failed, redriven 1, {killed} \
             start 1 1, end 1 1 failed, start 1 2, end 1 2 failed, start 1 3, end 1 3 failed, redriven 1, \
             start 1 4, end 1 4 failed, start 1 5, end 1 5 failed, dead 1 exhausted 5, drained"
        )
    };
    judged(&Rules::rabbitmq(), &again("kill 5,"), &[]);
    illegal(Rule::Attempts, &again(""));
}

#[test]
fn what_publishes_on_may_start_again_after_its_success_and_counts_as_handled() {
    let sent = "pub 1, ok 1, start 1 1, end 1 1 sends";
    legal(&format!("{sent}, drained"));
    legal(&format!("{sent}, start 1 2, end 1 2 sends, drained"));
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, start 1 1, end 1 1 succeeded, start 1 2, end 1 2 sends, drained",
    );
}

#[test]
fn a_crash_may_leave_a_copy_where_the_rules_say_so() {
    let copied = "pub 1 fail=1, ok 1, start 1 1, end 1 1 failed, kill 9, #8 start 1 2, #7 start 1 2, \
                  #8 end 1 2 succeeded, #7 end 1 2 succeeded, drained";
    judged(&Rules::rabbitmq(), copied, &[]);
    assert_eq!(report_of(Rules::rabbitmq(), copied).figures.copies, 1);
    let not_here = [Rule::Overlap, Rule::Attempts];
    judged(&Rules::default(), copied, &not_here);
    // It may be noted a little later than it died.
    let late = copied
        .replace("kill 9, ", "")
        .replace("drained", "kill 9, drained");
    judged(&Rules::rabbitmq(), &late, &[]);
    let never = copied.replace("kill 9, ", "");
    judged(&Rules::rabbitmq(), &never, &not_here);
    // Whoever is still at it at its deadline leaves it there.
    let stopped = |within: &str| copied.replace("kill 9", &format!("#9 stop {within}, #9 stopped"));
    judged(&Rules::rabbitmq(), &stopped("0"), &[]);
    judged(&Rules::rabbitmq(), &stopped("1000"), &not_here);
    let dead = "pub 1 refuse, ok 1, start 1 1, end 1 1 refused, kill 9, dead 1 permanent 1, \
                dead 1 permanent 1, drained";
    judged(&Rules::rabbitmq(), dead, &[]);
    assert_eq!(report_of(Rules::rabbitmq(), dead).figures.copies, 1);
    illegal(Rule::DeadLetter, dead);
    judged(
        &Rules::rabbitmq(),
        &dead.replace("kill 9, ", ""),
        &[Rule::DeadLetter],
    );
}

#[test]
fn what_was_completed_starts_again_only_after_a_crash_or_a_fault() {
    illegal(Rule::Repeated, "pub 1, ok 1, run 1 1, run 1 2, drained");
    illegal(
        Rule::Repeated,
        "pub 1 refuse, ok 1, start 1 1, end 1 1 refused, start 1 2, end 1 2 refused, \
         dead 1 permanent 2, drained",
    );
    legal("pub 1, ok 1, run 1 1, kill 9, #8 run 1 2, drained");
    legal("pub 1, ok 1, run 1 1, #8 run 1 2, kill 9, drained");
    legal("pub 1, ok 1, fault cut, run 1 1, fixed cut, #8 run 1 2, drained");
    legal("pub 1, ok 1, run 1 1, fault cut, fixed cut, #8 run 1 2, drained");
    // Of another process, much later, or long after the fault.
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, run 1 1, kill 8, #7 run 1 2, drained",
    );
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, run 1 1, #8 run 1 2, @9000 kill 9, drained",
    );
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, run 1 1, @9000 kill 9, #8 run 1 2, drained",
    );
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, run 1 1, @9000 fault cut, fixed cut, #8 run 1 2, drained",
    );
    illegal(
        Rule::Repeated,
        "fault cut, fixed cut, @20000 pub 1, ok 1, run 1 1, #8 run 1 2, drained",
    );
    illegal(
        Rule::Repeated,
        "pub 1, ok 1, run 1 1, @9000 fault cut, #8 run 1 2, drained",
    );
    // It is one completion that did not count.
    let failing = "start 1 2, end 1 2 failed, start 1 3, end 1 3 failed, run 1 4, drained";
    let report = report_of(
        Rules::default(),
        &format!("pub 1, ok 1, run 1 1, {failing}"),
    );
    assert_eq!(report.violations.len(), 1, "{:?}", report.violations);
    // Of two copies each may be completed, and each may be the one that was not settled.
    let both = "pub 1, unknown 1, pub 1, ok 1, run 1 1, #8 run 1 1";
    legal(&format!("{both}, kill 9, #7 run 1 2, drained"));
    illegal(Rule::Repeated, &format!("{both}, #7 run 1 2, drained"));
    legal(&format!(
        "fault cut, {both}, fixed cut, #7 run 1 2, drained"
    ));
    // A fault that only ends processes excuses nothing by itself.
    let rules = Rules {
        processes_only: ["crashes".to_owned()].into(),
        ..Rules::default()
    };
    let crashes = "fault crashes, pub 1, ok 1, run 1 1, #8 run 1 2, fixed crashes, drained";
    judged(&rules, crashes, &[Rule::Repeated]);
}

#[test]
fn a_message_runs_beside_itself_only_where_its_lock_was_lost() {
    let beside = "pub 1, ok 1, start 1 1, #8 start 1 2, #8 end 1 2 succeeded";
    illegal(Rule::Overlap, &format!("{beside}, end 1 1 failed, drained"));
    illegal(Rule::Overlap, &format!("{beside}, drained"));
    illegal(Rule::Overlap, &format!("{beside}, @9000 kill 9, drained"));
    legal(&format!("{beside}, kill 9, drained"));
    legal(
        &beside
            .replace("#8 start", "kill 9, #8 start")
            .replace("succeeded", "succeeded, drained"),
    );
    // A start of a process that is about to die counts as dead, and so does its end.
    legal("pub 1, ok 1, kill 9, start 1 1, effect 1, #8 run 1 2, drained");
    legal("pub 1, ok 1, kill 9, run 1 1, drained");
    // A frozen process goes on afterwards, outside sessions with success.
    let frozen = "pub 1, ok 1, start 1 1, fault frozen, #8 run 1 2, fixed frozen";
    legal(&format!("{frozen}, end 1 1 cancelled, drained"));
    legal(&format!("{frozen}, effect 1, end 1 1 succeeded, drained"));
}

#[test]
fn nothing_is_cancelled_without_a_reason() {
    let cancelled = "start 1 1, end 1 1 cancelled, #8 run 1 2, drained";
    illegal(Rule::Cancelled, &format!("pub 1, ok 1, {cancelled}"));
    legal(&format!("pub 1, ok 1, fault cut, {cancelled}"));
    legal(&format!(
        "pub 1, ok 1, stop 1000, {}",
        cancelled.replace("#8", "stopped, #8")
    ));
    legal(&format!(
        "pub 1, ok 1, {}",
        cancelled.replace("#8", "kill 9, #8")
    ));
    legal("pub 1 hang, unknown 1, start 1 1, end 1 1 cancelled, drained");
    let rules = Rules {
        cancellations: Some(1),
        ..Rules::default()
    };
    judged(&rules, &format!("pub 1, ok 1, {cancelled}"), &[]);
}

#[test]
fn a_delay_is_never_shortened_and_hardly_stretched() {
    let starts = |at: u64| format!("@1000 pub 1 wait=2000, @1500 ok 1, @{at} run 1 1, drained");
    illegal(Rule::Early, &starts(2_999));
    legal(&starts(3_000));
    legal(&starts(3_270));
    illegal(Rule::Late, &starts(3_271));
    legal(&starts(9_000).replace("ok 1", "ok 1, fault cut"));
    legal(&starts(9_000).replace("ok 1", "ok 1, kill 3"));
    legal(&starts(9_000).replace("ok 1", "ok 1, stop 1000, stopped"));
    // The first publish that may have happened counts.
    let again =
        "@1000 pub 1 wait=2000, refused 1, @2000 pub 1 wait=2000, ok 1, @3500 run 1 1, drained";
    illegal(Rule::Early, again);
    legal(&again.replace("refused", "unknown"));
    // Its later starts have their own delays, and a session its own reasons.
    legal(
        "@1000 pub 1 wait=2000 fail=1, ok 1, @3000 start 1 1, end 1 1 failed, @9000 run 1 2, drained",
    );
    legal("@1000 pub 1 key=1:0 wait=2000, ok 1, @9000 run 1 1 token=1, drained");
    let figures = report_of(Rules::default(), &starts(3_100)).figures;
    assert_eq!(figures.lateness_max, Duration::from_millis(100));
}
