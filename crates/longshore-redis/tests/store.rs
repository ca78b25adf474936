//! The store over Redis: the same marks as publishing writes, and what a server can do to it.
#![allow(clippy::unwrap_used)]

mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use longshore_core::{
    ErrorKind, Mark, MarkChange, MarkWrite, Published, Session, StateWrite, Store, Take, Text,
};
use server::{Consumer, Server, message, options, subscription};

const LOCK: Duration = Duration::from_secs(30);

fn take(name: &str, owner: &str) -> Take {
    Take {
        name: name.into(),
        owner: owner.into(),
        attempt: 1,
        lease: LOCK,
        sole: false,
    }
}

fn write(name: &str, owner: &str, change: MarkChange) -> MarkWrite {
    MarkWrite {
        name: name.into(),
        owner: owner.into(),
        change,
    }
}

fn done(reply: Option<&'static [u8]>) -> MarkChange {
    MarkChange::Done {
        window: LOCK,
        reply: reply.map(Bytes::from_static),
    }
}

fn state(message: &str, token: u64, value: Option<&'static str>) -> StateWrite {
    StateWrite {
        key: "k".into(),
        message: message.into(),
        token,
        value: value.map(Bytes::from),
    }
}

async fn ask(store: &Arc<dyn Store>, ask: Take) -> Mark {
    store.take(&"q".into(), &[ask]).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_and_the_store_know_the_same_ids() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let store = transport.store().unwrap();
    let _consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    let mut outgoing = message("q", "x");
    outgoing.dedup_window = Some(LOCK);
    let answer = transport.publish(vec![outgoing.clone()]).await;
    assert_eq!(*answer[0].as_ref().unwrap(), Published::Accepted);
    let Mark::Held { at_most } = ask(&store, take("id", "a")).await else {
        panic!("a published id is not held");
    };
    assert!(
        at_most > Duration::from_secs(29 * 24 * 60 * 60),
        "{at_most:?}"
    );
    // A session's only copy cannot wait for one behind it.
    let sole = Take {
        sole: true,
        ..take("id", "a")
    };
    assert_eq!(ask(&store, sole).await, Mark::Taken);

    assert_eq!(ask(&store, take("mine", "a")).await, Mark::Taken);
    outgoing.envelope.id = "mine".into();
    let answer = transport.publish(vec![outgoing]).await;
    assert_eq!(*answer[0].as_ref().unwrap(), Published::Duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_by_itself_shares_no_key_with_a_queue() {
    let server = Server::start(&[]).await;
    let open = || async {
        longshore_redis::open_store(&server.url(), options())
            .await
            .unwrap()
    };
    let (store, other) = (open().await, open().await);
    assert!(store.shared());
    assert_eq!(ask(&store, take("a", "me")).await, Mark::Taken);
    assert!(matches!(
        ask(&other, take("a", "you")).await,
        Mark::Held { at_most } if at_most <= LOCK
    ));
    store.grant(&"q".into(), 1).await.unwrap();
    let saved = store.save(&"q".into(), &state("m", 1, Some("s"))).await;
    saved.unwrap();
    let mut keys: Vec<String> = server.query("KEYS *");
    keys.sort();
    assert_eq!(
        keys,
        [
            "ls:store:{q}:dedup:a",
            "ls:store:{q}:state:k",
            "ls:store:{q}:token"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_knows_what_it_knew_and_scripts_are_loaded_again() {
    let mut server = Server::start(&["appendfsync always"]).await;
    let store = longshore_redis::open_store(&server.url(), options())
        .await
        .unwrap();
    let scope = Text::from("q");
    assert_eq!(ask(&store, take("a", "me")).await, Mark::Taken);
    store
        .write(&scope, &[write("b", "", done(Some(b"r")))])
        .await
        .unwrap();
    store.grant(&scope, 7).await.unwrap();
    server.broker.kill().await.unwrap();
    let down = store.take(&scope, &[take("a", "me")]).await;
    assert_eq!(down.unwrap_err().kind(), ErrorKind::Unavailable);
    server.broker.start_again().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let marks = loop {
        match store
            .take(&scope, &[take("a", "me"), take("b", "me")])
            .await
        {
            Ok(marks) => break marks,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let reply = Some(Bytes::from_static(b"r"));
    assert_eq!(marks, [Mark::Taken, Mark::Done { reply }]);
    let stale = store.save(&scope, &state("m", 6, None)).await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
    server.query::<String>("SCRIPT FLUSH");
    assert_eq!(
        store
            .renew(&scope, &[("a".into(), "me".into())], LOCK)
            .await
            .unwrap(),
        [true]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_takes_no_ids_and_says_what_is_done() {
    let server = Server::start(&["maxmemory-policy noeviction"]).await;
    let store = longshore_redis::open_store(&server.url(), options())
        .await
        .unwrap();
    let scope = Text::from("q");
    ask(&store, take("a", "me")).await;
    ask(&store, take("b", "me")).await;
    store.grant(&scope, 1).await.unwrap();
    server.query::<String>("CONFIG SET maxmemory 1");
    let refused = store.take(&scope, &[take("new", "me")]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    let refused = store.save(&scope, &state("m", 1, Some("s"))).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(
        store
            .renew(&scope, &[("a".into(), "me".into())], LOCK)
            .await
            .unwrap(),
        [true]
    );
    let waiting = MarkChange::Waiting {
        attempt: 2,
        at_most: LOCK,
    };
    let writes = [write("a", "me", done(None)), write("b", "me", waiting)];
    store.write(&scope, &writes).await.unwrap();
    store.grant(&scope, 2).await.unwrap();
    assert_eq!(
        ask(&store, take("a", "you")).await,
        Mark::Done { reply: None }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_64_bits_are_compared_exactly() {
    let server = Server::start(&[]).await;
    let store = longshore_redis::open_store(&server.url(), options())
        .await
        .unwrap();
    let scope = Text::from("q");
    store.grant(&scope, u64::MAX - 1).await.unwrap();
    store.grant(&scope, 9).await.unwrap();
    let stale = store
        .save(&scope, &state("m", u64::MAX - 2, Some("no")))
        .await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
    for token in [u64::MAX - 1, u64::MAX] {
        store
            .save(&scope, &state("m", token, Some("yes")))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_session_is_kept_for_a_day_and_used_ones_for_ever() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let store = transport.store().unwrap();
    let scope = Text::from("q");
    let save = |write| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.save(&scope, &write).await.unwrap() }
    };
    let lasts = || server.query::<i64>("TTL ls:{q}:state:k");
    save(state("1", 0, None)).await;
    assert_eq!(lasts(), -2, "nothing was there and nothing is");
    save(state("1", 0, Some("a"))).await;
    assert_eq!(lasts(), -1);
    save(state("2", 0, None)).await;
    assert!((86_000..=86_400).contains(&lasts()));
    let seen = |message: &'static str| {
        let (store, scope) = (store.clone(), scope.clone());
        async move {
            store
                .load(&scope, &"k".into(), &message.into())
                .await
                .unwrap()
        }
    };
    let before = seen("2").await.state;
    assert_eq!(before.as_deref(), Some(&b"a"[..]));
    assert_eq!(seen("3").await, Session::default());
    store
        .set_aside(&scope, &"k".into(), true, None)
        .await
        .unwrap();
    assert_eq!((lasts(), seen("3").await.set_aside), (-1, true));
    store
        .set_aside(&scope, &"k".into(), false, None)
        .await
        .unwrap();
    assert!(lasts() > 0);
    save(state("3", 0, Some("b"))).await;
    assert_eq!(lasts(), -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_another_kind_is_overwritten() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let store = transport.store().unwrap();
    let scope = Text::from("q");
    for name in ["a", "b"] {
        server.query::<u64>(&format!("LPUSH ls:{{q}}:dedup:{name} x"));
    }
    assert_eq!(
        store
            .renew(&scope, &[("a".into(), "".into())], LOCK)
            .await
            .unwrap(),
        [false]
    );
    store
        .write(
            &scope,
            &[
                write("b", "", MarkChange::Released),
                write("b", "", done(None)),
            ],
        )
        .await
        .unwrap();
    assert_eq!(ask(&store, take("a", "me")).await, Mark::Taken);
    assert_eq!(
        ask(&store, take("b", "me")).await,
        Mark::Done { reply: None }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_client_has_a_closed_store() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let store = transport.store().unwrap();
    ask(&store, take("a", "me")).await;
    transport.close(Duration::from_secs(1)).await;
    let closed = store.take(&"q".into(), &[take("a", "me")]).await;
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Closed);
}
