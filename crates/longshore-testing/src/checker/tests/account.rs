//! Nothing is lost, nothing comes from nowhere.

use super::*;

#[test]
fn what_was_confirmed_is_handled_dead_or_left() {
    legal("pub 1, ok 1, run 1 1, drained");
    legal("pub 1 refuse, ok 1, start 1 1, end 1 1 refused, dead 1 permanent 1, drained");
    legal("pub 1, ok 1, left 1");
    illegal(Rule::Lost, "pub 1, ok 1, drained");
    // An effect alone completes nothing, and neither does a failure.
    illegal(
        Rule::Lost,
        "pub 1, ok 1, start 1 1, effect 1, kill 9, drained",
    );
    illegal(
        Rule::Lost,
        "pub 1, ok 1, start 1 1, end 1 1 failed, drained",
    );
    illegal(
        Rule::Lost,
        "pub 1 refuse, ok 1, start 1 1, end 1 1 refused, drained",
    );
    // Confirmed once is confirmed, whatever the other tries were answered.
    illegal(
        Rule::Lost,
        "pub 1, unknown 1, pub 1, ok 1, pub 1, refused 1, drained",
    );
}

#[test]
fn where_nothing_was_read_at_the_end_nothing_is_missed() {
    let report = report_of(Rules::default(), "pub 1, ok 1");
    assert_eq!(report.verdict(), Verdict::Invalid);
    let report = report_of(Rules::default(), "pub 1, ok 1, pub 2, ok 2, left 2");
    assert_eq!(report.violations[0].rule, Rule::Lost);
}

#[test]
fn an_unknown_publish_may_have_happened_or_not() {
    legal("pub 1, unknown 1, drained");
    legal("pub 1, unknown 1, run 1 1, drained");
    legal("pub 1, run 1 1, unknown 1, drained");
    legal("pub 1, drained");
    legal("pub 1, unknown 1, pub 1, refused 1, run 1 1, drained");
    let report = report_of(Rules::default(), "pub 1, unknown 1, run 1 1, drained");
    assert_eq!((report.figures.unknown, report.figures.recovered), (1, 1));
}

#[test]
fn what_was_refused_is_not_handled() {
    legal("pub 1, refused 1, drained");
    legal("pub 1, refused 1, pub 1, ok 1, run 1 1, drained");
    illegal(Rule::Refused, "pub 1, refused 1, run 1 1, drained");
    illegal(Rule::Refused, "pub 1, run 1 1, refused 1, drained");
    illegal(
        Rule::Refused,
        "pub 1, refused 1, run 1 1, kill 9, #8 start 1 2, kill 8, #7 run 1 3, drained",
    );
    illegal(
        Rule::Refused,
        "pub 1 unprocessable, refused 1, dead 1 hostile 0, drained",
    );
    illegal(Rule::Refused, "pub 1 id=1, duplicate 1, run 1 1, drained");
}

#[test]
fn nothing_comes_from_nowhere() {
    illegal(Rule::Phantom, "start 1 1, drained");
    illegal(Rule::Phantom, "dead 1 exhausted 5, drained");
    illegal(Rule::Phantom, "left 1");
    illegal(Rule::Phantom, "pub 1, unknown 1, effect 1, drained");
}

#[test]
fn what_arrives_is_what_was_published() {
    illegal(
        Rule::Corrupt,
        "pub 1, ok 1, start 1 1 torn, end 1 1 succeeded, drained",
    );
    illegal(
        Rule::Corrupt,
        "pub 1 unprocessable, ok 1, dead 1 hostile 0 torn, drained",
    );
}

#[test]
fn what_a_process_saw_for_itself_counts() {
    illegal(Rule::Seen, "pub 1, ok 1, wrong 1, run 1 1, drained");
}

#[test]
fn the_lost_are_told_apart_by_what_was_kept_of_their_publisher_and_queue() {
    let history = "pub 1, ok 1, pub 2, ok 2, run 2 1, pub 3, ok 3, pub 4, ok 4, run 4 1, pub 5, ok 5, \
                   #2 pub 6, #2 ok 6, pub 7 queue=other, ok 7, run 7 1, drained";
    let figures = report_of(Rules::default(), history).figures;
    let lost = (
        figures.lost_before,
        figures.lost_between,
        figures.lost_after,
    );
    assert_eq!(lost, (2, 1, 1), "1 and 6 before, 3 between, 5 after");
}
