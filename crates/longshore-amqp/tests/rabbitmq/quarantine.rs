//! Messages whose consumers die.

use std::time::Duration;

use longshore_core::{ErrorKind, Reason, Verdict};

use crate::rig::{Rig, body};

#[tokio::test]
async fn a_message_that_came_back_twice_goes_through_the_quarantine_alone() {
    let rig = Rig::new().await;
    rig.publish(["a", "b", "c"]).await;
    // Two consumers die with all three in their hands.
    for attempt in 1..=2 {
        let mut taker = rig.subscribe().await;
        let held = taker.exactly(3).await;
        assert!(held.iter().all(|d| d.attempt == attempt), "{held:?}");
        drop(taker);
    }
    // From now on one at a time, at attempt 3: the two deaths are counted.
    let mut taker = rig.subscribe().await;
    let poison = taker.one().await;
    let name = body(&poison).to_owned();
    assert_eq!(poison.attempt, 3);
    taker.nothing().await;
    // A retry returns to the quarantine and counts on.
    let after = Duration::ZERO;
    taker.settle(poison, Verdict::Retry { after }).await;
    for _ in 0..2 {
        let innocent = taker.one().await;
        assert_ne!(body(&innocent), name, "{innocent:?}");
        assert_eq!(innocent.attempt, 3, "{innocent:?} {}", body(&innocent));
        taker.complete(vec![innocent]).await;
    }
    let poison = taker.one().await;
    assert_eq!((body(&poison), poison.attempt), (name.as_str(), 4));
    // A death in the quarantine counts once it was started.
    taker.start(&poison).await.expect("noted");
    drop(taker);
    let mut taker = rig.subscribe().await;
    let poison = taker.one().await;
    assert_eq!((body(&poison), poison.attempt), (name.as_str(), 5));
    let reason = Reason::Crashed;
    let detail = String::new();
    taker
        .settle(poison, Verdict::DeadLetter { reason, detail })
        .await;
    taker.nothing().await;
}

#[tokio::test]
async fn without_a_threshold_nothing_is_diverted() {
    let rig = Rig::new().await;
    rig.publish(["a"]).await;
    for attempt in 1..=4 {
        let mut subscription = rig.subscription();
        subscription.suspect_returns = u32::MAX;
        let mut taker = rig.subscribe_as(subscription).await;
        assert_eq!(taker.one().await.attempt, attempt);
    }
}

#[tokio::test]
async fn what_only_waits_in_the_quarantine_loses_nothing_however_often_it_comes_back() {
    let rig = Rig::new().await;
    suspects(&rig, ["a", "b", "c"]).await;
    for _ in 0..6 {
        let mut taker = rig.subscribe().await;
        let held = taker.one().await;
        assert!(held.suspect, "{held:?}");
        assert_eq!(held.attempt, 3, "{held:?}");
        drop(taker);
    }
    let mut taker = rig.subscribe().await;
    for _ in 0..3 {
        let held = taker.one().await;
        assert_eq!(held.attempt, 3, "{held:?}");
        taker.complete(vec![held]).await;
    }
}

#[tokio::test]
async fn each_noted_start_of_a_suspect_counts_and_no_other() {
    let rig = Rig::new().await;
    suspects(&rig, ["a"]).await;
    for attempt in 3..=8 {
        let mut taker = rig.subscribe().await;
        let held = taker.one().await;
        assert_eq!(held.attempt, attempt);
        taker.start(&held).await.expect("noted");
        drop(taker);
        let mut taker = rig.subscribe().await;
        assert_eq!(taker.one().await.attempt, attempt + 1);
    }
}

#[tokio::test]
async fn a_started_suspect_is_settled_once_and_lets_the_next_one_out() {
    let rig = Rig::new().await;
    suspects(&rig, ["a", "b", "c", "d"]).await;
    let mut taker = rig.subscribe().await;
    let after = Duration::ZERO;
    let detail = String::new();
    let reason = Reason::Exhausted;
    let dead = Verdict::DeadLetter { reason, detail };
    let retry = Verdict::Retry { after };
    let release = Verdict::Release { after };
    for verdict in [Verdict::Complete, dead, retry, release] {
        let held = taker.one().await;
        taker.start(&held).await.expect("noted");
        taker.nothing().await;
        let (receipt, attempt) = (held.receipt, held.attempt);
        taker.settle(held, verdict).await;
        let again = longshore_core::Settlement::complete(receipt, attempt);
        let refused = taker.settle_one(again).await.expect_err("settled before");
        assert_eq!(refused.error.kind(), ErrorKind::Stale);
        let again = taker.settler.start(&[(receipt, attempt)]).await.pop();
        let refused = again.expect("an answer").expect_err("settled before");
        assert_eq!(refused.kind(), ErrorKind::Stale);
    }
    // What went back is behind what waited.
    let mut returned = Vec::new();
    for _ in 0..2 {
        let held = taker.one().await;
        returned.push(held.attempt);
        taker.complete(vec![held]).await;
    }
    assert_eq!(returned, [4, 3]);
    taker.nothing().await;
    let stats = rig
        .transport
        .admin()
        .stats(rig.queue())
        .await
        .expect("stats");
    assert_eq!(stats.dead, 1, "{stats:?}");
}

/// Two processes die with these in their hands.
async fn suspects<const N: usize>(rig: &Rig, bodies: [&str; N]) {
    rig.publish(bodies).await;
    for attempt in 1..=2 {
        let held = rig.subscribe().await.exactly(N).await;
        assert!(held.iter().all(|d| d.attempt == attempt), "{held:?}");
    }
}

#[tokio::test]
async fn what_is_given_back_between_two_deaths_is_a_suspect_all_the_same() {
    let rig = Rig::new().await;
    rig.publish(["a"]).await;
    assert_eq!(rig.subscribe().await.one().await.attempt, 1);
    for (attempt, suspect) in [(2, false), (3, true), (3, true), (3, true)] {
        let mut taker = rig.subscribe().await;
        for after in [Duration::ZERO, Duration::from_millis(50)] {
            let held = taker.one().await;
            assert_eq!((held.attempt, held.suspect), (attempt, suspect));
            taker.settle(held, Verdict::Release { after }).await;
        }
        assert_eq!(taker.one().await.attempt, attempt);
    }
    let mut taker = rig.subscribe().await;
    let held = taker.one().await;
    taker.start(&held).await.expect("noted");
    let after = Duration::ZERO;
    taker.settle(held, Verdict::Retry { after }).await;
    assert_eq!(taker.one().await.attempt, 4);
}
