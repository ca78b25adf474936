//! Order, exclusion and fencing tokens of sessions.

use super::*;

/// Two messages of one session, both confirmed.
const TWO: &str = "pub 1 key=1:0, ok 1, pub 2 key=1:1, ok 2";

#[test]
fn a_session_is_handled_in_the_order_of_its_publishes() {
    legal(&format!("{TWO}, run 1 1 token=1, run 2 1 token=1, drained"));
    illegal(
        Rule::Order,
        &format!("{TWO}, run 2 1 token=1, run 1 1 token=1, drained"),
    );
    // Neither key nor queue is shared.
    legal(
        &format!("{TWO}, run 1 1 token=1, run 2 1 token=1, drained").replace("key=1:1", "key=2:0"),
    );
    legal(
        "pub 1 key=1:0, ok 1, pub 2 key=1:1 queue=b, ok 2, run 2 1 token=1, run 1 1 token=1, drained",
    );
    // What is unknown may come late, or never.
    let unknown = TWO.replace("ok 1", "unknown 1");
    legal(&format!(
        "{unknown}, run 2 1 token=1, run 1 1 token=1, drained"
    ));
    legal(&format!("{unknown}, run 2 1 token=1, drained"));
    // And be tried again then; but not where it had come in its place.
    let fails = "start 1 1 token=1, end 1 1 failed";
    legal(&format!(
        "{unknown}, run 2 1 token=1, {fails}, run 1 2 token=1, drained"
    ));
    illegal(
        Rule::Replay,
        &format!("{unknown}, {fails}, run 2 1 token=1, run 1 2 token=1, drained"),
    );
    // What was delayed has its place when its delay has passed.
    let delayed = TWO.replace("1:0", "1:0 wait=1000");
    legal(&format!(
        "{delayed}, run 2 1 token=1, @2000 run 1 1 token=1, drained"
    ));
    let delayed = TWO.replace("1:1", "1:1 wait=1");
    legal(&format!(
        "{delayed}, @9000 run 2 1 token=1, run 1 1 token=1, drained"
    ));
}

#[test]
fn a_retry_waits_in_its_place() {
    let failed = format!("{TWO}, start 1 1 token=1, end 1 1 failed");
    legal(&format!(
        "{failed}, run 1 2 token=1, run 2 1 token=1, drained"
    ));
    illegal(
        Rule::Replay,
        &format!("{failed}, run 2 1 token=1, run 1 2 token=1, drained"),
    );
    illegal(
        Rule::Replay,
        &format!(
            "{failed}, start 2 1 token=1, end 2 1 failed, run 1 2 token=1, run 2 2 token=1, drained"
        ),
    );
    // A dead letter has left the order, and redriven it comes last.
    let refused = TWO.replace("1:0", "1:0 refuse");
    legal(&format!(
        "{refused}, start 1 1 token=1, end 1 1 refused, run 2 1 token=1, redriven 1, \
         start 1 1 token=1, end 1 1 refused, dead 1 permanent 1, drained"
    ));
}

#[test]
fn a_broker_that_died_may_have_forgotten_where_the_rules_say_so() {
    let forgot = format!(
        "{TWO}, run 1 1 token=1, run 2 1 token=1, fault broker, fixed broker, run 1 2 token=1, \
         run 2 2 token=1, drained"
    );
    illegal(Rule::Replay, &forgot);
    let rules = Rules {
        may_replay: true,
        ..Rules::default()
    };
    judged(&rules, &forgot, &[]);
    assert_eq!(report_of(rules.clone(), &forgot).figures.replays, 1);
    let calm = forgot.replace("fault broker, fixed broker, ", "");
    judged(&rules, &calm, &[Rule::Replay, Rule::Repeated]);
}

#[test]
fn one_message_of_a_session_runs_at_a_time() {
    let beside = format!("{TWO}, start 1 1 token=1, run 2 1 token=1");
    illegal(
        Rule::Overlap,
        &format!("{beside}, effect 1 token=1, end 1 1 succeeded, drained"),
    );
    illegal(
        Rule::Overlap,
        &format!("{beside}, fault cut, end 1 1 succeeded, drained"),
    );
    // A fault that takes a session away gives it another token.
    illegal(
        Rule::Overlap,
        &format!("fault cut, {beside}, end 1 1 succeeded, drained"),
    );
    // The key and its retry, and different keys.
    illegal(
        Rule::Overlap,
        &format!(
            "{TWO}, start 1 1 token=1, run 1 2 token=1, end 1 1 failed, run 2 1 token=1, drained"
        ),
    );
    legal(
        "pub 1 key=1:0, ok 1, pub 2 key=2:0, ok 2, start 1 1 token=1, run 2 1 token=1, \
           effect 1 token=1, end 1 1 succeeded, drained",
    );
}

#[test]
fn a_start_that_was_killed_cancelled_or_fenced_off_is_no_overlap() {
    let taken = "#8 run 1 2 token=2, #8 run 2 1 token=2";
    legal(&format!(
        "{TWO}, start 1 1 token=1, kill 9, {taken}, drained"
    ));
    legal(&format!(
        "{TWO}, start 1 1 token=1, {taken}, kill 9, drained"
    ));
    legal(&format!(
        "{TWO}, start 1 1 token=1, {taken}, effect 1 token=1 stale, end 1 1 failed, drained"
    ));
    legal(&format!(
        "{TWO}, kill 9, start 1 1 token=1, {taken}, drained"
    ));
    let frozen = format!("{TWO}, start 1 1 token=1, fault frozen, {taken}, fixed frozen");
    legal(&format!("{frozen}, end 1 1 cancelled, drained"));
    legal(&format!(
        "{frozen}, effect 1 token=1 stale, end 1 1 succeeded, drained"
    ));
    legal(&format!("{frozen}, end 1 1 failed, drained"));
    // It went on before anybody else took effect.
    legal(&format!(
        "{TWO}, start 1 1 token=1, fault frozen, #8 start 1 2 token=2, effect 1 token=1, \
         end 1 1 succeeded, #8 effect 1 token=2, #8 end 1 2 succeeded, #8 run 2 1 token=2, drained"
    ));
    // Without any fault nobody takes a session from a living owner.
    illegal(
        Rule::Overlap,
        &format!("{TWO}, start 1 1 token=1, {taken}, end 1 1 failed, drained"),
    );
}

#[test]
fn an_owner_that_is_one_no_more_may_start_what_it_holds_but_not_complete_it() {
    let moved = format!("{TWO}, run 1 1 token=1, fault frozen, #8 start 2 1 token=2");
    let zombie = "fixed frozen, start 2 1 token=1, effect 2 token=1 stale, end 2 1 succeeded";
    // The same number twice is not allowed even so.
    let second = zombie.replace("2 1", "2 2");
    let done = "#8 effect 2 token=2, #8 end 2 1 succeeded";
    legal(&format!("{moved}, {second}, {done}, drained"));
    illegal(
        Rule::Attempts,
        &format!("{moved}, {zombie}, {done}, drained"),
    );
    let late = second.replace("start", "@30000 start");
    illegal(Rule::Fencing, &format!("{moved}, {late}, {done}, drained"));
    illegal(
        Rule::Lost,
        "pub 1 key=1:0, ok 1, start 1 1 token=1, effect 1 token=1 stale, end 1 1 succeeded, drained",
    );
    // The new owner dies, and the old one has completed it.
    illegal(Rule::Lost, &format!("{moved}, {second}, kill 8, drained"));
    let accepted = second.replace(" stale", "");
    illegal(Rule::Lost, &format!("{moved}, {accepted}, kill 8, drained"));
    // With an id the work is done, where it took effect.
    let named = |history: &str| history.replace("pub 2 ", "pub 2 id=7 ");
    legal(&named(&format!("{moved}, {accepted}, kill 8, drained")));
    illegal(
        Rule::Lost,
        &named(&format!("{moved}, {second}, kill 8, drained")),
    );
    legal(&format!(
        "{moved}, {second}, kill 8, #7 run 2 3 token=3, drained"
    ));
}

#[test]
fn a_token_is_granted_to_one_owner_and_accepted_in_order() {
    legal("owns orders.00 1, #8 owns orders.00 2, owns orders.00 3, owns orders.01 2, drained");
    legal("owns orders.00 1, owns orders.00 1, drained");
    illegal(
        Rule::Fencing,
        "owns orders.00 1, #8 owns orders.00 1, drained",
    );
    illegal(
        Rule::Fencing,
        &format!("{TWO}, run 1 1 token=1, #8 run 2 1 token=1, drained"),
    );
    let shrunk = format!(
        "{TWO}, run 1 1 token=2, fault frozen, #8 start 2 1 token=3, #8 effect 2 token=3, \
         #8 end 2 1 succeeded, effect 1 token=2, drained"
    );
    illegal(Rule::Fencing, &shrunk);
    legal(&shrunk.replace("effect 1 token=2, d", "effect 1 token=2 stale, d"));
    let report = report_of(
        Rules::default(),
        "owns a 1, #8 owns a 2, #8 owns a 3, owns b 1",
    );
    assert_eq!(report.figures.owner_changes, 1);
}
