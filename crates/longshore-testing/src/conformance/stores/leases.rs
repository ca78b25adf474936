//! Leases: how long an id is held, and who may take it over.

use std::{sync::Arc, time::Duration};

use longshore_core::{Mark, MarkChange, Take};
use tokio::time::Instant;

use super::{
    stage::{LONG, SHORT, SLACK, StoreStage, done, mark, take, waiting},
    store_cases,
};

store_cases![
    p12_a_lease_that_is_not_renewed_ends,
    p12_a_renewed_lease_lasts,
    p12_a_lease_that_ended_cannot_come_back_over_another,
    p12_leases_are_renewed_in_order_by_their_owners,
    p12_a_wait_ends,
    p12_a_sole_copy_takes_over_what_runs,
    p12_what_is_done_has_no_lease,
];

fn shortly(name: &str, owner: &str) -> Take {
    Take {
        lease: SHORT,
        ..take(name, owner)
    }
}

async fn p12_a_lease_that_is_not_renewed_ends(stage: Arc<StoreStage>) {
    let from = Instant::now();
    StoreStage::assert_taken(&stage.take(shortly("id", "a")).await);
    StoreStage::assert_held(&stage.take(take("id", "b")).await, SHORT);
    stage.until_taken("id", "b", SHORT).await;
    let lasted = from.elapsed() + Duration::from_millis(1);
    assert!(lasted >= SHORT, "taken over after {lasted:?}");
    StoreStage::assert_held(&stage.take(take("id", "c")).await, LONG);
}

async fn p12_a_renewed_lease_lasts(stage: Arc<StoreStage>) {
    stage.take(shortly("id", "a")).await;
    stage.take(shortly("again", "a")).await;
    let from = Instant::now();
    let mut last = from;
    while from.elapsed() < SHORT * 3 {
        // On a machine so slow that a lease ended before its renewal, nothing is said.
        let slow = last.elapsed() > SHORT / 2;
        let renewed = stage.renew(&[("id", "a")], SHORT).await;
        let again = stage.take(shortly("again", "a")).await;
        if slow && (renewed != [true] || again != Mark::Taken) {
            return;
        }
        last = Instant::now();
        assert_eq!(renewed, [true]);
        StoreStage::assert_taken(&again);
        for name in ["id", "again"] {
            let held = stage.take_elsewhere(take(name, "b")).await;
            if last.elapsed() < SHORT / 2 {
                StoreStage::assert_held(&held, SHORT);
            }
        }
        tokio::time::sleep(SHORT / 6).await;
    }
    // A renewal may also make it longer, or end it sooner.
    assert_eq!(stage.renew(&[("again", "a")], LONG).await, [true]);
    tokio::time::sleep(SHORT * 2).await;
    StoreStage::assert_held(&stage.take(take("again", "b")).await, LONG);
    assert_eq!(stage.renew(&[("again", "a")], SHORT).await, [true]);
    let took = stage.until_taken("again", "b", SHORT).await;
    assert!(took < SHORT + SLACK);
}

async fn p12_a_lease_that_ended_cannot_come_back_over_another(stage: Arc<StoreStage>) {
    for name in ["renewed", "released", "waits"] {
        stage.take(shortly(name, "a")).await;
        stage.until_taken(name, "b", SHORT).await;
    }
    assert_eq!(stage.renew(&[("renewed", "a")], LONG).await, [false]);
    stage
        .write(mark("released", "a", MarkChange::Released))
        .await;
    stage.write(mark("waits", "a", waiting(1))).await;
    for name in ["renewed", "released", "waits"] {
        StoreStage::assert_held(&stage.take(take(name, "a")).await, LONG);
        assert_eq!(stage.renew(&[(name, "b")], LONG).await, [true]);
    }
}

async fn p12_leases_are_renewed_in_order_by_their_owners(stage: Arc<StoreStage>) {
    stage.take(take("one", "a")).await;
    stage.take(take("two", "b")).await;
    stage.take(take("done", "a")).await;
    stage.write(mark("done", "a", done(None))).await;
    stage.take(take("gone", "a")).await;
    stage.write(mark("gone", "a", MarkChange::Released)).await;
    let renewed = stage
        .renew(
            &[
                ("one", "b"),
                ("one", "a"),
                ("two", "a"),
                ("two", "b"),
                ("done", "a"),
                ("gone", "a"),
                ("never", "a"),
                ("one", ""),
            ],
            LONG,
        )
        .await;
    let wanted = [false, true, false, true, false, false, false, false];
    assert_eq!(renewed, wanted);
    assert!(stage.renew(&[], LONG).await.is_empty());
    // Asking made nothing anybody's.
    StoreStage::assert_taken(&stage.take(take("never", "c")).await);
    StoreStage::assert_taken(&stage.take(take("gone", "c")).await);
}

async fn p12_a_wait_ends(stage: Arc<StoreStage>) {
    stage.take(take("id", "a")).await;
    let from = Instant::now();
    let change = MarkChange::Waiting {
        attempt: 5,
        at_most: SHORT,
    };
    stage.write(mark("id", "a", change)).await;
    StoreStage::assert_held(&stage.take(take("id", "b")).await, SHORT);
    stage.until_taken("id", "b", SHORT).await;
    let lasted = from.elapsed() + Duration::from_millis(1);
    assert!(lasted >= SHORT, "taken over after {lasted:?}");
}

async fn p12_a_sole_copy_takes_over_what_runs(stage: Arc<StoreStage>) {
    let sole = |owner| Take {
        sole: true,
        ..take("id", owner)
    };
    StoreStage::assert_taken(&stage.take(take("id", "a")).await);
    StoreStage::assert_taken(&stage.take_elsewhere(sole("b")).await);
    StoreStage::assert_taken(&stage.take(sole("c")).await);
    // The former owners are heard no more.
    let renewed = stage
        .renew(&[("id", "a"), ("id", "b"), ("id", "c")], LONG)
        .await;
    assert_eq!(renewed, [false, false, true]);
    for owner in ["a", "b"] {
        stage.write(mark("id", owner, MarkChange::Released)).await;
        stage.write(mark("id", owner, waiting(1))).await;
        StoreStage::assert_held(&stage.take(take("id", "d")).await, LONG);
    }
    // But for what they have done.
    stage.write(mark("id", "a", done(None))).await;
    assert_eq!(stage.take(sole("d")).await, Mark::Done { reply: None });
}

async fn p12_what_is_done_has_no_lease(stage: Arc<StoreStage>) {
    stage.take(shortly("id", "a")).await;
    stage.write(mark("id", "a", done(None))).await;
    tokio::time::sleep(SHORT * 2).await;
    let found = stage.take_elsewhere(take("id", "b")).await;
    assert_eq!(
        found,
        Mark::Done { reply: None },
        "the window, not the lease"
    );
}
