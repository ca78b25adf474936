//! Dead letters, and the innocent.

use super::*;

const FAILING: &str = "start 1 1, end 1 1 failed, start 1 2, end 1 2 failed, start 1 3, \
                       end 1 3 failed, start 1 4, end 1 4 failed, start 1 5, end 1 5 failed";

#[test]
fn a_reason_is_known_and_fits_its_message() {
    legal(&format!(
        "pub 1 always, ok 1, {FAILING}, dead 1 exhausted 5, drained"
    ));
    illegal(
        Rule::DeadLetter,
        &format!("pub 1 always, ok 1, {FAILING}, dead 1 unknown 5, drained"),
    );
    illegal(
        Rule::DeadLetter,
        &format!("pub 1 always, ok 1, {FAILING}, dead 1 permanent 5, drained"),
    );
    illegal(
        Rule::DeadLetter,
        &format!("pub 1 always, ok 1, {FAILING}, dead 1 exhausted 4, drained"),
    );
    legal("pub 1 unprocessable, ok 1, dead 1 undecodable 1, drained");
    illegal(
        Rule::DeadLetter,
        "pub 1, ok 1, dead 1 undecodable 1, drained",
    );
    illegal(
        Rule::DeadLetter,
        "pub 1 unprocessable, ok 1, start 1 1, end 1 1 failed, dead 1 hostile 1, drained",
    );
    legal("pub 1 key=1:0, ok 1, dead 1 session-set-aside 0, drained");
    illegal(
        Rule::DeadLetter,
        "pub 1, ok 1, dead 1 session-set-aside 0, drained",
    );
}

#[test]
fn the_poisonous_are_dead_once_they_used_their_attempts_up() {
    illegal(
        Rule::DeadLetter,
        "pub 1 always, ok 1, start 1 1, end 1 1 failed, dead 1 exhausted 5, drained",
    );
    let aborting = "start 1 1, kill 9, #8 start 1 2, kill 8, #7 start 1 3, kill 7, #6 start 1 4, \
                    kill 6, #5 start 1 5, kill 5";
    legal(&format!(
        "pub 1 abort, ok 1, {aborting}, dead 1 crashed 5, drained"
    ));
    illegal(
        Rule::DeadLetter,
        &format!(
            "pub 1 abort, ok 1, {}, dead 1 crashed 5, drained",
            aborting.replace(", kill 5", "")
        ),
    );
}

#[test]
fn the_innocent_are_dead_by_their_own_starts_only() {
    illegal(
        Rule::Innocent,
        "pub 1, ok 1, kill 9, dead 1 crashed 5, drained",
    );
    illegal(Rule::Innocent, "pub 1, ok 1, dead 1 exhausted 5, drained");
    illegal(
        Rule::Innocent,
        "pub 1 unprocessable, ok 1, dead 1 crashed 5, drained",
    );
    legal("pub 1 unprocessable, ok 1, kill 9, dead 1 crashed 5, drained");
    illegal(
        Rule::Innocent,
        "pub 1, ok 1, start 1 1, kill 9, dead 1 crashed 5, drained",
    );
    let crashing = "pub 1, ok 1, start 1 1, kill 9, #8 start 1 2, kill 8, #7 start 1 3, kill 7, \
                    #6 start 1 4, kill 6";
    legal(&format!(
        "{crashing}, #5 start 1 5, kill 5, dead 1 crashed 5, drained"
    ));
    // One attempt may be stolen.
    legal(&format!("{crashing}, dead 1 crashed 5, drained"));
    // Dead while it ran, or though it succeeded.
    illegal(
        Rule::Innocent,
        &format!("{crashing}, #5 start 1 5, dead 1 crashed 5, drained"),
    );
    illegal(
        Rule::DeadLetter,
        &format!("{crashing}, #5 run 1 5, dead 1 crashed 5, drained"),
    );
    legal(&format!(
        "{crashing}, #5 run 1 5, kill 5, dead 1 crashed 5, drained"
    ));
    legal(&format!(
        "{crashing}, fault cut, #5 run 1 5, dead 1 crashed 5, drained"
    ));
    // Sent back, it is owed again, although it took effect once.
    illegal(
        Rule::Lost,
        &format!("{crashing}, #5 run 1 5, kill 5, dead 1 crashed 5, redriven 1, drained"),
    );
}

#[test]
fn a_message_that_only_waited_loses_at_most_what_may_be_stolen() {
    legal("pub 1, ok 1, kill 9, #8 run 1 2, drained");
    illegal(Rule::Innocent, "pub 1, ok 1, kill 9, #8 run 1 3, drained");
    judged(
        &Rules::rabbitmq(),
        "pub 1, ok 1, kill 9, #8 run 1 3, drained",
        &[],
    );
    illegal(
        Rule::Innocent,
        "pub 1 fail=1, ok 1, start 1 1, end 1 1 failed, run 1 4, drained",
    );
    // Each time it waits.
    legal("pub 1 fail=3, ok 1, kill 9, start 1 2, end 1 2 failed, kill 8, run 1 4, drained");
    let never = "pub 1, ok 1, kill 9, kill 8, dead 1 crashed 2, drained";
    for (stolen_attempts, broken) in [(1, &[Rule::Innocent][..]), (2, &[])] {
        let rules = Rules {
            max_attempts: 2,
            stolen_attempts,
            ..Rules::default()
        };
        judged(&rules, never, broken);
    }
}

#[test]
fn a_start_that_was_noted_counts_whether_it_happened_or_not() {
    let told = |events: &str| format!("pub 1, ok 1, kill 9, {events}, drained");
    legal(&told("#8 noting 1 2, kill 8, #7 run 1 3"));
    legal(&told(
        "#8 noting 1 2, kill 8, #7 noting 1 3, kill 7, #6 run 1 4",
    ));
    illegal(Rule::Innocent, &told("#8 noting 1 2, kill 8, #7 run 1 4"));
    // Noted again with the same number, it is the same start; and what is started counts once.
    let twice = "#8 noting 1 2, #8 noting 1 2, kill 8, #7 run 1 4";
    illegal(Rule::Innocent, &told(twice));
    let started = "#8 noting 1 2, #8 start 1 2, kill 8, #7 run 1 4";
    legal(&told(&started.replace("1 4", "1 3")));
    illegal(Rule::Innocent, &told(&started.replace("1 4", "1 5")));
    let noted: String = (2..=5)
        .map(|n| format!("#1{n} noting 1 {n}, kill 1{n}, "))
        .collect();
    let dead = told(&format!("{noted}dead 1 crashed 5"));
    legal(&dead);
    illegal(Rule::Innocent, &dead.replace("#12 noting 1 2, ", ""));
    let redriven = "pub 1 refuse, ok 1, #8 noting 1 4, kill 9, #8 start 1 1, #8 end 1 1 refused, \
                    dead 1 permanent 1, redriven 1, #7 start 1 3, #7 end 1 3 refused, dead 1 permanent 3, drained";
    illegal(Rule::Attempts, redriven);
}

#[test]
fn with_one_attempt_nobody_knows_on_rabbitmq_what_had_started() {
    let waited = "pub 1, ok 1, kill 9, dead 1 abandoned 1, drained";
    let once = |rules| Rules {
        max_attempts: 1,
        ..rules
    };
    judged(&once(Rules::rabbitmq()), waited, &[]);
    judged(&once(Rules::default()), waited, &[Rule::Innocent]);
    let calm = waited.replace("kill 9, ", "");
    judged(&once(Rules::rabbitmq()), &calm, &[Rule::Innocent]);
    let started = "pub 1, ok 1, start 1 1, kill 9, dead 1 abandoned 1, drained";
    judged(&once(Rules::default()), started, &[]);
}

#[test]
fn a_dead_letter_is_there_once_for_each_copy() {
    let unprocessable = "dead 1 hostile 0, dead 1 hostile 0, drained";
    illegal(
        Rule::DeadLetter,
        &format!("pub 1 unprocessable, ok 1, {unprocessable}"),
    );
    legal(&format!(
        "pub 1 unprocessable, unknown 1, pub 1, ok 1, {unprocessable}"
    ));
    // It was read, sent back, and is dead again.
    legal("pub 1 unprocessable, ok 1, dead 1 hostile 0, redriven 1, dead 1 hostile 0, drained");
}

#[test]
fn what_was_redriven_is_owed_again() {
    let dead = format!("pub 1 always, ok 1, {FAILING}, dead 1 exhausted 5, redriven 1");
    illegal(Rule::Lost, &format!("{dead}, drained"));
    let unknown = dead.replace("ok 1", "unknown 1");
    illegal(Rule::Lost, &format!("{unknown}, drained"));
    legal(&format!("{dead}, run 1 1, drained"));
    legal(&format!("{dead}, {FAILING}, dead 1 exhausted 5, drained"));
    // The redrive did not come to pass.
    legal(&format!("{dead}, dead 1 exhausted 5, drained"));
}

#[cfg(feature = "conformance")]
#[test]
fn the_reasons_are_those_of_the_wire() {
    use longshore_core::Reason;

    let known = [
        Reason::Exhausted,
        Reason::Permanent,
        Reason::Crashed,
        Reason::Abandoned,
        Reason::Undecodable,
        Reason::NoHandler,
        Reason::Expired,
        Reason::TooLarge,
        Reason::Hostile,
        Reason::KeyMissing,
        Reason::SessionSetAside,
    ];
    for reason in known {
        let history = format!("pub 1, ok 1, dead 1 {reason} 5, drained");
        let report = report_of(Rules::default(), &history);
        let said: Vec<_> = report.violations.iter().map(|v| &v.what).collect();
        assert!(
            said.iter().all(|what| !what.contains("no reason")),
            "{said:?}"
        );
    }
}
