//! The store of one process, as the framework sees it.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    ConnectOptions, ErrorKind, Mark, MarkChange, MarkWrite, StateWrite, Store, SystemClock, Take,
    Text, mark_name,
};
use longshore_memory::{MemoryBroker, MemoryStore};

const LEASE: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(600);

fn store() -> MemoryStore {
    MemoryStore::new(Arc::new(SystemClock::new()))
}

fn take(id: &str, owner: &str, attempt: u32) -> Take {
    Take {
        name: mark_name(None, id),
        owner: owner.into(),
        attempt,
        lease: LEASE,
        sole: false,
    }
}

fn write(id: &str, owner: &str, change: MarkChange) -> MarkWrite {
    MarkWrite {
        name: mark_name(None, id),
        owner: owner.into(),
        change,
    }
}

async fn ask(store: &MemoryStore, scope: &Text, take: Take) -> Mark {
    let marks = store.take(scope, &[take]).await.expect("an answer");
    marks.into_iter().next().expect("one answer")
}

#[tokio::test(start_paused = true)]
async fn a_completed_id_is_known_for_its_window_with_its_reply() {
    let (store, scope) = (store(), Text::from("orders"));
    assert_eq!(ask(&store, &scope, take("a", "x", 1)).await, Mark::Taken);
    let reply = Some("quote".into());
    let done = MarkChange::Done {
        window: WINDOW,
        reply: reply.clone(),
    };
    store
        .write(&scope, &[write("a", "x", done)])
        .await
        .expect("writes");
    tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
    assert_eq!(
        ask(&store, &scope, take("a", "y", 1)).await,
        Mark::Done { reply }
    );
    let elsewhere = Text::from("invoices");
    assert_eq!(
        ask(&store, &elsewhere, take("a", "y", 1)).await,
        Mark::Taken
    );
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&store, &scope, take("a", "y", 1)).await, Mark::Taken);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_unless_it_is_renewed() {
    let (store, scope) = (store(), Text::from("orders"));
    assert_eq!(ask(&store, &scope, take("a", "x", 1)).await, Mark::Taken);
    tokio::time::advance(LEASE / 3).await;
    let lease = [(mark_name(None, "a"), Text::from("x"))];
    assert_eq!(
        store.renew(&scope, &lease, LEASE).await.expect("renews"),
        [true]
    );
    tokio::time::advance(LEASE * 5 / 6).await;
    let at_most = LEASE / 6;
    let held = ask(&store, &scope, take("a", "y", 1)).await;
    assert_eq!(held, Mark::Held { at_most });
    tokio::time::advance(at_most).await;
    assert_eq!(ask(&store, &scope, take("a", "y", 1)).await, Mark::Taken);
    assert_eq!(
        store.renew(&scope, &lease, LEASE).await.expect("renews"),
        [false]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_copy_keeps_its_id_for_its_own_next_attempt() {
    let (store, scope) = (store(), Text::from("orders"));
    assert_eq!(ask(&store, &scope, take("a", "x", 1)).await, Mark::Taken);
    let at_most = Duration::from_secs(60);
    let waiting = MarkChange::Waiting {
        attempt: 2,
        at_most,
    };
    store
        .write(&scope, &[write("a", "x", waiting)])
        .await
        .expect("writes");
    assert_eq!(
        ask(&store, &scope, take("a", "y", 1)).await,
        Mark::Held { at_most }
    );
    assert_eq!(ask(&store, &scope, take("a", "z", 2)).await, Mark::Taken);
    // Whoever had it before can do nothing to it any more.
    let late = write("a", "x", MarkChange::Released);
    store.write(&scope, &[late]).await.expect("writes");
    let held = ask(&store, &scope, take("a", "y", 1)).await;
    assert_eq!(held, Mark::Held { at_most: LEASE });
    let released = write("a", "z", MarkChange::Released);
    store.write(&scope, &[released]).await.expect("writes");
    assert_eq!(ask(&store, &scope, take("a", "y", 1)).await, Mark::Taken);
}

#[tokio::test]
async fn a_full_store_refuses_and_says_nothing_of_duplicates() {
    let store = MemoryStore::with_capacity(Arc::new(SystemClock::new()), 1, 1);
    let scope = Text::from("orders");
    assert_eq!(ask(&store, &scope, take("a", "x", 1)).await, Mark::Taken);
    let refused = store.take(&scope, &[take("b", "y", 1)]).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Full));
    assert_eq!(ask(&store, &scope, take("a", "x", 1)).await, Mark::Taken);
    for (key, stored) in [("k", Ok(())), ("l", Err(ErrorKind::Full)), ("k", Ok(()))] {
        let state = StateWrite {
            key: key.into(),
            message: "m".into(),
            token: 1,
            value: Some("state".into()),
        };
        assert_eq!(
            store.save(&scope, &state).await.map_err(|e| e.kind()),
            stored
        );
    }
}

#[tokio::test]
async fn the_clients_of_one_broker_share_one_store_and_a_store_alone_is_of_one_process() {
    assert!(!store().shared());
    let broker = MemoryBroker::new(&ConnectOptions::default());
    let first = broker.open().store().expect("a store");
    let second = broker.open().store().expect("a store");
    assert!(first.shared());
    let scope = Text::from("orders");
    let taken = first
        .take(&scope, &[take("a", "x", 1)])
        .await
        .expect("an answer");
    assert_eq!(taken, [Mark::Taken]);
    let held = second
        .take(&scope, &[take("a", "y", 1)])
        .await
        .expect("an answer");
    assert!(matches!(held[..], [Mark::Held { .. }]), "{held:?}");
}
