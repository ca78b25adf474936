//! Stops, memory, recovery.

use super::*;

#[test]
fn a_worker_stops_by_its_deadline() {
    legal("@1000 stop 2000, @3500 stopped, drained");
    illegal(Rule::Stop, "@1000 stop 2000, @3501 stopped, drained");
    illegal(Rule::Stop, "stop 2000, drained");
    illegal(Rule::Stop, "stop 2000, #8 stopped, drained");
    legal("stop 2000, kill 9, drained");
    illegal(Rule::Stop, "@1000 stop 2000, @9000 #1 kill 9, drained");
    // Asked twice, it has the first deadline.
    illegal(
        Rule::Stop,
        "@1000 stop 2000, @3000 stop 2000, @4000 stopped, drained",
    );
}

#[test]
fn memory_stays_below_its_limit() {
    let rules = Rules {
        memory: Some(1_000),
        ..Rules::default()
    };
    judged(&rules, "memory 1000, drained", &[]);
    judged(&rules, "memory 1001, drained", &[Rule::Memory]);
    let figures = report_of(rules, "memory 10, #8 memory 900, memory 11").figures;
    assert_eq!(figures.memory, 900);
}

#[test]
fn after_the_last_fault_things_go_on_and_come_to_an_end() {
    let healed = "pub 1, ok 1, fault cut, @1000 fixed cut, healed";
    legal(&format!("{healed}, @10000 run 1 1, drained"));
    illegal(
        Rule::Liveness,
        &format!("{healed}, @12000 run 1 1, drained"),
    );
    illegal(Rule::Liveness, &format!("{healed}, run 1 1"));
    illegal(
        Rule::Liveness,
        &format!("{healed}, run 1 1, @302000 drained"),
    );
    // There was nothing left to do.
    legal(&format!(
        "pub 1, ok 1, run 1 1, {}, @90000 drained",
        &healed[12..]
    ));
    let figures = report_of(
        Rules::default(),
        &format!("{healed}, @3000 run 1 1, drained"),
    )
    .figures;
    assert_eq!(figures.recovery, Duration::from_secs(2));
    assert_eq!(figures.drain, Some(Duration::from_millis(2_000)));
}

#[test]
fn a_fault_that_follows_another_leaves_no_time_to_recover_from_that() {
    let faults = "pub 1, ok 1, fault a, fixed a, fault b, @5000 fixed b, @5200 run 1 1, drained";
    let figures = report_of(Rules::default(), faults).figures;
    assert_eq!(figures.recovery, Duration::from_millis(200));
    let between = faults.replace("@5000 fixed b, ", "");
    let figures = report_of(Rules::default(), &between).figures;
    assert_eq!(figures.recovery, Duration::ZERO);
}

#[test]
fn figures_count_what_happened() {
    let figures = report_of(
        Rules::default(),
        "pub 1 fail=1, ok 1, pub 2, refused 2, pub 3 id=1, duplicate 3, pub 4 refuse, unknown 4, \
         start 1 1, end 1 1 failed, run 1 2, start 4 1, effect 4 stale, end 4 1 refused, kill 3, \
         fault cut, fixed cut, dead 4 permanent 1, left 2, drained",
    )
    .figures;
    let expected = Figures {
        published: 4,
        confirmed: 1,
        unknown: 1,
        refused: 1,
        duplicates: 1,
        recovered: 1,
        starts: 3,
        redeliveries: 1,
        effects: 1,
        stale_effects: 1,
        dead: 1,
        left: 1,
        kills: 1,
        faults: 1,
        ..Figures::default()
    };
    assert_eq!(figures, expected);
}
