use super::*;

fn arrival(tag: u64, again: bool) -> Arrival {
    Arrival {
        tag,
        id: format!("m{tag}").into(),
        before: 0,
        again,
    }
}

fn judged(attempt: u32, suspect: bool, returns: u32) -> Judgement {
    Judgement {
        attempt,
        suspect,
        returns,
    }
}

/// The ledger of the next owner after a crash, or a clean hand-over.
fn next(ledger: &Ledger, clean: bool) -> Ledger {
    let mut next = Ledger::new(clean, ledger.is_unseen(), ledger.notes());
    next.open(32);
    next
}

fn fresh() -> Ledger {
    let mut ledger = Ledger::new(false, false, Notes::new());
    ledger.open(32);
    ledger
}

#[test]
fn a_first_delivery_starts_once_and_needs_no_note() {
    let mut ledger = fresh();
    assert_eq!(ledger.arrive(arrival(1, false)), judged(1, false, 0));
    ledger.take(1);
    assert!(!ledger.is_clean());
    assert!(ledger.notes().is_empty());
    ledger.settle(1);
    assert!(ledger.is_clean());
}

#[test]
fn after_a_crash_what_was_held_counts_as_started_once_however_often_it_crashes_unstarted() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    for returns in 1..4 {
        ledger = next(&ledger, false);
        assert_eq!(ledger.arrive(arrival(1, true)), judged(2, true, returns));
    }
}

#[test]
fn noted_starts_go_on_counting_over_crashes_and_clean_hand_overs() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    ledger.take(1);
    ledger.start(1, 2).expect("held");
    ledger.start(1, 3).expect("held");
    ledger = next(&ledger, false);
    assert_eq!(ledger.arrive(arrival(1, true)), judged(4, true, 1));
    ledger.keep(1, 4);
    assert!(ledger.is_clean());
    ledger = next(&ledger, true);
    assert_eq!(ledger.arrive(arrival(1, true)), judged(4, false, 1));
}

#[test]
fn what_never_started_comes_from_a_clean_owner_as_new_and_from_a_dead_one_as_started_once() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    ledger.take(1);
    ledger.keep(1, 1);
    let mut clean = next(&ledger, true);
    assert_eq!(clean.arrive(arrival(1, true)), judged(1, false, 0));
    // It starts without a note, and its process dies.
    clean.take(1);
    let mut dead = next(&clean, false);
    assert_eq!(dead.arrive(arrival(1, true)), judged(2, true, 1));
}

#[test]
fn an_owner_that_leaves_before_it_has_seen_what_a_dead_one_held_does_not_vouch_for_it() {
    let mut dead = fresh();
    dead.arrive(arrival(1, false));
    dead.arrive(arrival(2, false));
    let mut heir = next(&dead, false);
    assert_eq!(heir.arrive(arrival(1, true)), judged(2, true, 1));
    heir.keep(1, 2);
    let mut last = next(&heir, true);
    assert_eq!(last.arrive(arrival(1, true)), judged(2, false, 1));
    assert_eq!(last.arrive(arrival(2, true)), judged(2, true, 1));
    // Now all has come, and the next owner is told of both.
    last.pass(false);
    let mut at_peace = next(&last, true);
    assert_eq!(at_peace.arrive(arrival(1, true)), judged(2, false, 1));
    assert_eq!(at_peace.arrive(arrival(2, true)), judged(2, false, 1));
    at_peace.pass(false);
    assert!(!at_peace.is_unseen());
}

#[test]
fn a_start_that_could_not_be_noted_did_not_happen() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    let before = ledger.start(1, 2).expect("held");
    ledger.undo(1, 2, before);
    assert!(ledger.notes().is_empty());
}

#[test]
fn what_is_settled_or_kept_cannot_start() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    ledger.arrive(arrival(2, false));
    ledger.settle(1);
    ledger.keep(2, 1);
    for tag in [1, 2, 3] {
        let error = ledger.start(tag, 2).expect_err("not held");
        assert_eq!(error.kind(), ErrorKind::Stale);
    }
}

#[test]
fn notes_of_what_never_comes_again_are_dropped_once_that_is_certain() {
    let mut ledger = fresh();
    for tag in 1..=3 {
        ledger.arrive(arrival(tag, false));
        ledger.start(tag, 2).expect("held");
    }
    // The acknowledgement of 1 reached the broker, the note did not know.
    let mut one = next(&ledger, false);
    one.arrive(arrival(2, true));
    assert_eq!(one.notes().len(), 3, "1 and 3 may come");
    one.arrive(arrival(3, true));
    one.arrive(arrival(4, false));
    assert_eq!(one.notes().len(), 2);
    let mut full = Ledger::new(false, false, ledger.notes());
    full.open(2);
    full.arrive(arrival(2, true));
    full.arrive(arrival(3, true));
    assert_eq!(full.notes().len(), 2);
}

#[test]
fn an_id_used_again_is_not_taken_for_the_message_that_had_it() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    ledger.start(1, 3).expect("held");
    let mut next = next(&ledger, false);
    assert_eq!(next.arrive(arrival(1, false)), judged(1, false, 0));
    assert!(next.notes().is_empty());
}

#[test]
fn two_of_one_id_share_the_higher_numbers() {
    let twin = |tag, again| Arrival {
        id: "same".into(),
        ..arrival(tag, again)
    };
    let mut ledger = fresh();
    ledger.arrive(twin(1, false));
    ledger.arrive(twin(2, false));
    ledger.start(2, 4).expect("held");
    ledger.settle(2);
    assert!(ledger.notes().is_empty());
    ledger.start(1, 2).expect("held");
    ledger.arrive(twin(3, false));
    let mut next = next(&ledger, false);
    assert_eq!(next.arrive(twin(1, true)), judged(3, true, 1));
    assert_eq!(next.arrive(twin(2, true)), judged(3, true, 1));
}

#[test]
fn a_second_channel_of_one_owner_goes_on_where_the_first_ended() {
    let mut ledger = fresh();
    ledger.arrive(arrival(1, false));
    ledger.arrive(arrival(2, false));
    ledger.take(1);
    ledger.start(1, 2).expect("held");
    ledger.keep(1, 3);
    ledger.open(32);
    assert_eq!(ledger.arrive(arrival(1, true)), judged(3, false, 0));
    assert_eq!(ledger.arrive(arrival(2, true)), judged(1, false, 0));
    ledger.take(2);
    ledger.open(32);
    assert_eq!(ledger.arrive(arrival(2, true)), judged(2, true, 1));
}

#[test]
fn starts_of_earlier_copies_are_counted_too() {
    let redirected = |again| Arrival {
        before: 3,
        ..arrival(1, again)
    };
    let mut ledger = fresh();
    assert_eq!(ledger.arrive(redirected(false)), judged(4, false, 0));
    assert_eq!(
        next(&ledger, false).arrive(redirected(true)),
        judged(5, true, 1)
    );
    assert_eq!(
        next(&ledger, true).arrive(redirected(true)),
        judged(4, false, 0)
    );
}
