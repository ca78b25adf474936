//! The state of a session: who sees which.

use std::sync::Arc;

use longshore_core::Session;

use super::{stage::StoreStage, store_cases};
use crate::conformance::must::Must;

store_cases![
    p11_a_session_nobody_wrote_to_is_empty,
    p11_a_message_sees_the_state_from_before_its_own_write,
    p11_another_write_for_the_same_message_keeps_what_was_before_it,
    p11_a_cleared_state_is_none,
    p11_a_state_of_256_kib_is_kept_byte_for_byte,
    p11_states_of_keys_and_scopes_are_apart,
    p11_an_aborted_try_of_a_message_is_not_seen_by_it,
];

fn text(value: &str) -> Option<Vec<u8>> {
    Some(value.as_bytes().to_vec())
}

async fn p11_a_session_nobody_wrote_to_is_empty(stage: Arc<StoreStage>) {
    assert_eq!(stage.load("key", "m1").await, Session::default());
    stage.grant(3).await;
    assert_eq!(stage.load("key", "m1").await, Session::default());
    stage.save("key", "m1", 3, None).await.must("saving");
    assert_eq!(stage.load("key", "m1").await, Session::default());
    assert_eq!(stage.load("key", "m2").await, Session::default());
}

async fn p11_a_message_sees_the_state_from_before_its_own_write(stage: Arc<StoreStage>) {
    let save = |message, value: &'static str| stage.save("key", message, 1, Some(value.as_bytes()));
    save("m1", "one").await.must("saving");
    assert_eq!(stage.state("key", "m1").await, None);
    assert_eq!(stage.state("key", "m2").await, text("one"));
    assert_eq!(stage.state("key", "").await, text("one"));
    save("m2", "two").await.must("saving");
    assert_eq!(stage.state("key", "m2").await, text("one"));
    for message in ["m1", "m3", "m", "m22"] {
        assert_eq!(stage.state("key", message).await, text("two"), "{message}");
    }
    // Reading changes nothing, however often.
    for _ in 0..3 {
        assert_eq!(stage.state("key", "m2").await, text("one"));
        assert_eq!(stage.state("key", "m3").await, text("two"));
    }
    // A message that writes later than another sees the other's.
    save("m1", "three").await.must("saving");
    assert_eq!(stage.state("key", "m1").await, text("two"));
    assert_eq!(stage.state("key", "m2").await, text("three"));
}

async fn p11_another_write_for_the_same_message_keeps_what_was_before_it(stage: Arc<StoreStage>) {
    let save = |message, value: &'static str| stage.save("key", message, 1, Some(value.as_bytes()));
    save("m1", "one").await.must("saving");
    for value in ["two", "two", "another two", "two again"] {
        save("m2", value).await.must("saving");
        assert_eq!(stage.state("key", "m2").await, text("one"), "after {value}");
        assert_eq!(stage.state("key", "m3").await, text(value));
    }
    // Also where there was nothing before it.
    for value in ["first", "second"] {
        let saved = stage.save("new", "m1", 1, Some(value.as_bytes())).await;
        saved.must("saving");
        assert_eq!(stage.state("new", "m1").await, None);
        assert_eq!(stage.state("new", "m2").await, text(value));
    }
}

async fn p11_a_cleared_state_is_none(stage: Arc<StoreStage>) {
    let save = |message, value: Option<&'static [u8]>| stage.save("key", message, 1, value);
    save("m1", Some(b"one")).await.must("saving");
    save("m2", None).await.must("clearing");
    assert_eq!(stage.state("key", "m2").await, text("one"));
    assert_eq!(stage.state("key", "m3").await, None);
    // Empty is not cleared.
    save("m3", Some(b"")).await.must("saving");
    assert_eq!(stage.state("key", "m3").await, None);
    assert_eq!(stage.state("key", "m4").await, text(""));
    save("m4", Some(b"four")).await.must("saving");
    assert_eq!(stage.state("key", "m4").await, text(""));
    // A try that clears after one that wrote, and one that writes after one that cleared.
    save("m4", None).await.must("clearing");
    assert_eq!(stage.state("key", "m4").await, text(""));
    assert_eq!(stage.state("key", "m5").await, None);
    save("m4", Some(b"four")).await.must("saving");
    assert_eq!(stage.state("key", "m4").await, text(""));
    assert_eq!(stage.state("key", "m5").await, text("four"));
}

async fn p11_a_state_of_256_kib_is_kept_byte_for_byte(stage: Arc<StoreStage>) {
    let large: Vec<u8> = (0..256 * 1024_u32).map(|at| (at % 253) as u8).collect();
    let smaller = &large[1..];
    let saved = stage.save("key", "m1", 1, Some(&large)).await;
    saved.must("saving 256 KiB");
    let saved = stage.save("key", "m2", 1, Some(smaller)).await;
    saved.must("saving");
    assert!(stage.state("key", "m2").await.as_deref() == Some(&large));
    assert!(stage.state("key", "m3").await.as_deref() == Some(smaller));
}

async fn p11_states_of_keys_and_scopes_are_apart(stage: Arc<StoreStage>) {
    let keys = [
        "key",
        "key ",
        "KEY",
        "",
        "key:1",
        "{key}",
        "ü✓\u{1f600}",
        "\"\\'\r\n\0*?[]",
        &"k".repeat(128),
        &"k".repeat(127),
    ];
    for (at, key) in keys.into_iter().enumerate() {
        let value = at.to_string();
        let saved = stage.save(key, "m'1\n", 1, Some(value.as_bytes())).await;
        saved.must("saving");
    }
    let elsewhere = StoreStage {
        one: stage.other.clone(),
        other: stage.one.clone(),
        scope: format!("{}.s4.1", stage.scope).into(),
    };
    assert_eq!(elsewhere.load("key", "m2").await, Session::default());
    let saved = elsewhere.save("key", "m2", 1, Some(b"elsewhere")).await;
    saved.must("saving");
    for (at, key) in keys.into_iter().enumerate() {
        let value = at.to_string();
        assert_eq!(stage.state(key, "m2").await, text(&value), "{key:?}");
        assert_eq!(stage.state(key, "m'1\n").await, None, "{key:?}");
    }
}

/// A crash between the write of a state and the settlement: the message comes again, elsewhere.
async fn p11_an_aborted_try_of_a_message_is_not_seen_by_it(stage: Arc<StoreStage>) {
    let mut token = 1;
    for (count, message) in (0_u32..).zip(["m1", "m2", "m3"]) {
        for _ in 0..3 {
            stage.grant(token).await;
            let seen = stage.state("key", message).await;
            let seen = seen.map_or(0, |state| state.len() as u32);
            assert_eq!(seen, count, "another try of {message} counts once");
            let value = vec![b'x'; seen as usize + 1];
            let saved = stage.save("key", message, token, Some(&value)).await;
            saved.must("saving");
            token += 1;
        }
    }
    assert_eq!(stage.state("key", "m4").await.map(|s| s.len()), Some(3));
}
