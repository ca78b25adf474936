//! Messages whose consumers die.

use std::time::Duration;

use longshore_core::{Reason, Verdict};

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
    // A death in the quarantine counts too.
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
async fn whoever_dies_as_soon_as_it_is_started_costs_nothing_in_the_quarantine() {
    let rig = Rig::new().await;
    rig.publish(["a"]).await;
    for attempt in 1..=2 {
        assert_eq!(rig.subscribe().await.one().await.attempt, attempt);
    }
    for _ in 0..6 {
        let taker = rig.subscribe().await;
        // So long a life is too short to start anything.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(taker);
    }
    assert_eq!(rig.subscribe().await.one().await.attempt, 3);
}
