//! Fencing tokens, and sessions that are set aside whole.

use std::{sync::Arc, time::Duration};

use longshore_core::Session;
use tokio::time::Instant;

use super::{
    stage::{SLACK, StoreStage, assert_fenced},
    store_cases,
};
use crate::conformance::must::Must;

store_cases![
    p11_a_write_under_an_old_token_is_refused,
    p11_a_grant_never_lowers_the_token,
    p11_a_grant_is_for_its_scope_alone,
    p11_of_two_owners_the_older_writes_no_more,
    p11_a_session_is_set_aside_and_brought_back,
    p11_an_old_token_sets_nothing_aside_but_an_operator_may,
];

async fn p11_a_write_under_an_old_token_is_refused(stage: Arc<StoreStage>) {
    stage.grant(5).await;
    stage
        .save("key", "m1", 5, Some(b"five"))
        .await
        .must("saving");
    stage.grant(6).await;
    for value in [Some(&b"late"[..]), None] {
        assert_fenced(stage.save("key", "m1", 5, value).await);
        assert_fenced(stage.save("key", "m2", 4, value).await);
        assert_fenced(stage.save("another key", "m2", 5, value).await);
    }
    assert_eq!(
        stage.state("key", "m2").await.as_deref(),
        Some(&b"five"[..])
    );
    assert_eq!(stage.load("another key", "m3").await, Session::default());
    stage
        .save("key", "m2", 6, Some(b"six"))
        .await
        .must("saving");
    assert_eq!(stage.state("key", "m3").await.as_deref(), Some(&b"six"[..]));
}

async fn p11_a_grant_never_lowers_the_token(stage: Arc<StoreStage>) {
    for token in [9, 3, 9, 8, u64::from(u32::MAX) + 7, 10] {
        stage.grant(token).await;
    }
    let newest = u64::from(u32::MAX) + 7;
    for token in [3, 9, 10, newest - 1] {
        assert_fenced(stage.save("key", "m1", token, Some(b"old")).await);
    }
    for token in [newest, newest + 1] {
        stage
            .save("key", "m1", token, Some(b"new"))
            .await
            .must("saving");
    }
    assert_eq!(stage.state("key", "m2").await.as_deref(), Some(&b"new"[..]));
}

async fn p11_a_grant_is_for_its_scope_alone(stage: Arc<StoreStage>) {
    let elsewhere = StoreStage {
        one: stage.other.clone(),
        other: stage.one.clone(),
        scope: format!("{}.s4.1", stage.scope).into(),
    };
    stage.grant(100).await;
    elsewhere.grant(2).await;
    elsewhere
        .save("key", "m1", 2, Some(b"two"))
        .await
        .must("saving");
    assert_fenced(stage.save("key", "m1", 2, Some(b"two")).await);
    stage
        .save("key", "m1", 100, Some(b"hundred"))
        .await
        .must("saving");
    let state = elsewhere.state("key", "m2").await;
    assert_eq!(state.as_deref(), Some(&b"two"[..]));
}

/// The older one keeps writing while the newer one is granted: from then on, and not before, it is
/// refused.
async fn p11_of_two_owners_the_older_writes_no_more(stage: Arc<StoreStage>) {
    stage.grant(1).await;
    let older = stage.clone();
    let writing = tokio::spawn(async move {
        let from = Instant::now();
        for at in 0.. {
            let message = format!("old-{at}");
            let saved = older.save("key", &message, 1, Some(b"old")).await;
            if saved.is_err() {
                assert_fenced(saved);
                break;
            }
            assert!(from.elapsed() < SLACK, "never refused");
            tokio::task::yield_now().await;
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.other.grant(&stage.scope, 2).await.must("granting");
    let newer = StoreStage {
        one: stage.other.clone(),
        other: stage.one.clone(),
        scope: stage.scope.clone(),
    };
    newer
        .save("key", "new", 2, Some(b"new"))
        .await
        .must("saving");
    for _ in 0..20 {
        let state = newer.state("key", "later").await;
        assert_eq!(
            state.as_deref(),
            Some(&b"new"[..]),
            "a late write got through"
        );
    }
    writing.await.must("the older owner");
    assert_eq!(
        newer.state("key", "later").await.as_deref(),
        Some(&b"new"[..])
    );
}

async fn p11_a_session_is_set_aside_and_brought_back(stage: Arc<StoreStage>) {
    let aside = |key: &'static str, aside, token| {
        let (stage, key) = (stage.clone(), key.into());
        async move {
            let set = stage.one.set_aside(&stage.scope, &key, aside, token).await;
            set.must("setting aside or bringing back");
        }
    };
    stage.grant(2).await;
    stage
        .save("key", "m1", 2, Some(b"kept"))
        .await
        .must("saving");
    // Also one that never had a state.
    for key in ["key", "stateless"] {
        for _ in 0..2 {
            aside(key, true, Some(2)).await;
            assert!(stage.load(key, "m2").await.set_aside);
            assert!(stage.load(key, "m1").await.set_aside, "for every message");
        }
    }
    assert!(!stage.load("neighbour", "m2").await.set_aside);
    assert_eq!(
        stage.state("key", "m2").await.as_deref(),
        Some(&b"kept"[..])
    );
    assert_eq!(stage.state("key", "m1").await, None);
    // A state written meanwhile brings nothing back.
    stage
        .save("key", "m2", 2, Some(b"more"))
        .await
        .must("saving");
    stage.save("key", "m3", 2, None).await.must("clearing");
    assert!(stage.load("key", "m4").await.set_aside);
    for key in ["key", "stateless"] {
        for _ in 0..2 {
            aside(key, false, Some(2)).await;
            assert!(!stage.load(key, "m2").await.set_aside);
        }
    }
    assert_eq!(
        stage.state("key", "m3").await.as_deref(),
        Some(&b"more"[..])
    );
}

async fn p11_an_old_token_sets_nothing_aside_but_an_operator_may(stage: Arc<StoreStage>) {
    let key = "key".into();
    let aside = |aside, token| stage.one.set_aside(&stage.scope, &key, aside, token);
    stage.grant(7).await;
    assert_fenced(aside(true, Some(6)).await);
    assert!(!stage.load("key", "m1").await.set_aside);
    aside(true, None).await.must("an operator sets aside");
    assert!(stage.load("key", "m1").await.set_aside);
    assert_fenced(aside(false, Some(6)).await);
    assert!(stage.load("key", "m1").await.set_aside);
    aside(false, None).await.must("an operator brings back");
    assert!(!stage.load("key", "m1").await.set_aside);
    aside(true, Some(8)).await.must("a newer owner sets aside");
    assert!(stage.load("key", "m1").await.set_aside);
}
