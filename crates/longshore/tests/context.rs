//! What a handler knows of its message, and what it may do.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::time::Duration;

use longshore::{Backoff, Context, Draft, Envelope, HandlerError, Router};
use queue_under_test::{Log, Order, QueueUnderTest, until};

const QUICK: Duration = Duration::from_millis(10);

/// Handles what is on the queue; `tell` says what of each context to remember. The first attempt of
/// each message fails.
async fn remembered<T, F>(under_test: &QueueUnderTest, tell: F) -> Vec<T>
where
    T: Clone + std::fmt::Debug + Send + 'static,
    F: Fn(&Context) -> T + Clone + Send + Sync + 'static,
{
    let log = Log::new();
    let told = log.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        told.add(tell(&cx));
        std::future::ready(if cx.attempt() == 1 {
            Err(HandlerError::from("first"))
        } else {
            Ok(())
        })
    });
    let worker = under_test.worker(router).max_attempts(7);
    let worker = worker.backoff(Backoff::new(QUICK, QUICK));
    let worker = worker
        .time_limit(Duration::from_secs(9))
        .start()
        .await
        .unwrap();
    under_test.settled().await;
    worker.stop().await;
    log.all()
}

#[tokio::test(start_paused = true)]
async fn attempts_and_the_time_that_is_left_are_known() {
    let under_test = QueueUnderTest::new();
    under_test.publish(&Order { id: 1 }).await;
    let told = remembered(&under_test, |cx| {
        (cx.attempt(), cx.max_attempts(), cx.time_left())
    });
    let nine = Duration::from_secs(9);
    assert_eq!(told.await, [(1, 7, nine), (2, 7, nine)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_publisher_set_is_known() {
    let under_test = QueueUnderTest::new();
    let order = Order { id: 1 };
    let publish = under_test.client.publish(&under_test.queue, &order);
    publish
        .id("id-1")
        .key("customer-42")
        .correlation_id("of-7")
        .header("tenant", "acme")
        .header("binary", vec![0xff, 0xfe])
        .await
        .unwrap();
    let told = remembered(&under_test, |cx| {
        let header = |name| cx.header(name).map(str::to_owned);
        let owned = |text: Option<&str>| text.unwrap_or("none").to_owned();
        assert_eq!(cx.message_type(), "order.placed");
        assert_eq!(&cx.envelope().body[..], br#"{"id":1}"#);
        assert_eq!(header("tenant").as_deref(), Some("acme"));
        assert_eq!(header("binary"), None, "no text");
        assert_eq!(header("absent"), None);
        assert!(cx.envelope().sent_at.is_some());
        (
            cx.id().to_owned(),
            owned(cx.key()),
            owned(cx.correlation_id()),
        )
    });
    let once = (
        "id-1".to_owned(),
        "customer-42".to_owned(),
        "of-7".to_owned(),
    );
    assert_eq!(told.await, [once.clone(), once]);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_the_id_and_the_same_for_every_try() {
    let under_test = QueueUnderTest::new();
    under_test.publish_orders([1]).await;
    let told = remembered(&under_test, |cx| {
        assert_eq!(cx.idempotency_key(), cx.id());
        cx.idempotency_key().to_owned()
    });
    let told = told.await;
    assert_eq!((told.len(), told[0].len(), &told[0]), (2, 32, &told[1]));
}

/// Publishes past the client, as somebody else's would.
async fn publish_plain(under_test: &QueueUnderTest, envelope: Envelope) {
    under_test.client.declare(&under_test.queue).await.unwrap();
    let outgoing = longshore_core::Outgoing {
        to: longshore_core::Destination::Queue(
            longshore_core::Name::new("orders").unwrap(),
            longshore_core::Part::Lane(0),
        ),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    };
    let answers = under_test.broker.open().publish(vec![outgoing]).await;
    assert!(answers[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_has_an_idempotency_key_of_its_content() {
    let under_test = QueueUnderTest::new();
    for body in [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":1}"#] {
        publish_plain(&under_test, Envelope::new("order.placed", body)).await;
    }
    let told = remembered(&under_test, |cx| {
        assert_eq!(cx.id(), "");
        cx.idempotency_key().to_owned()
    });
    let mut told = told.await;
    assert_eq!(told.len(), 6);
    assert!(told.iter().all(|key| key.len() == 32));
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 2, "equal messages have the same");
}

#[tokio::test(start_paused = true)]
async fn contexts_are_not_mixed_up_when_their_allocation_is_used_again() {
    let under_test = QueueUnderTest::new();
    let drafts = (0..500).map(|id| {
        let draft = Draft::new(&Order { id }).id(format!("id-{id}"));
        if id.is_multiple_of(2) {
            draft.key(format!("key-{id}"))
        } else {
            draft
        }
    });
    for answer in under_test
        .client
        .publish_all(&under_test.queue, drafts)
        .await
    {
        answer.unwrap();
    }
    let (seen, kept) = (Log::new(), Log::new());
    let (log, keep) = (seen.clone(), kept.clone());
    let router = Router::new().handle_fn(move |order: Order, cx: Context| {
        let (log, keep) = (log.clone(), keep.clone());
        async move {
            let id = order.id;
            assert_eq!(cx.id(), format!("id-{id}"));
            assert_eq!(cx.key().is_some(), id.is_multiple_of(2));
            assert!(!cx.cancellation().is_cancelled());
            match id % 3 {
                0 => tokio::task::yield_now().await,
                1 => keep.add((id, cx.clone())),
                _ => {}
            }
            assert_eq!(cx.idempotency_key(), format!("id-{id}"));
            log.add(id);
            Ok(())
        }
    });
    let worker = under_test
        .worker(router)
        .max_attempts(1)
        .start()
        .await
        .unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!((seen.len(), under_test.letters().await.len()), (500, 0));
    for (id, cx) in kept.all() {
        let body = String::from_utf8_lossy(&cx.envelope().body).into_owned();
        assert_eq!(
            (cx.id(), body),
            (&*format!("id-{id}"), format!("{{\"id\":{id}}}"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_outlives_its_handler_can_be_read_but_publishes_nothing() {
    let under_test = QueueUnderTest::new();
    under_test.publish_orders([1]).await;
    let leaked = Log::new();
    let log = leaked.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        log.add(cx);
        std::future::ready(Ok(()))
    });
    let worker = under_test.worker(router).start().await.unwrap();
    under_test.settled().await;
    let cx = &leaked.all()[0];
    let answer = cx.publish(&under_test.queue, &Order { id: 2 }).await;
    assert_eq!(answer.unwrap_err().kind(), longshore::ErrorKind::Closed);
    assert_eq!(cx.attempt(), 1);
    under_test.publish_orders([3]).await;
    under_test.settled().await;
    let answer = cx.publish(&under_test.queue, &Order { id: 2 }).await;
    assert_eq!(answer.unwrap_err().kind(), longshore::ErrorKind::Closed);
    worker.stop().await;
    assert_eq!(
        leaked.len(),
        2,
        "the publish of the leaked clone arrived nowhere"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_secret_is_shown() {
    let under_test = QueueUnderTest::new();
    let draft = Draft::raw("order.placed", "", r#"{"id":1,"secret":"canary"}"#);
    let draft = draft.header("authorization", "canary");
    under_test
        .client
        .publish_all(&under_test.queue, [draft])
        .await;
    let shown = remembered(&under_test, |cx| format!("{cx:?} {:?}", cx.envelope()));
    let shown = shown.await;
    assert!(
        shown.iter().all(|text| !text.contains("canary")),
        "{shown:?}"
    );
    assert!(shown[0].contains("body_bytes"), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn the_cancellation_is_the_same_whenever_it_is_asked_for() {
    let (under_test, seen) = (QueueUnderTest::new(), Log::new());
    under_test.publish_orders([1]).await;
    let log = seen.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let log = log.clone();
        async move {
            let early = cx.cancellation();
            log.add("started");
            early.cancelled().await;
            assert!(
                cx.clone().cancellation().is_cancelled(),
                "asked for afterwards"
            );
            log.add("cancelled");
            Ok(())
        }
    });
    let worker = under_test
        .worker(router)
        .max_attempts(2)
        .start()
        .await
        .unwrap();
    seen.reaches(1).await;
    under_test.broker.lose_locks();
    until("it noticed", || seen.all().contains(&"cancelled")).await;
    under_test.broker.lose_locks();
    under_test.settled().await;
    worker.stop().await;
}
