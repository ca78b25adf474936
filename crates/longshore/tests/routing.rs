//! From message type to handler: what reaches whom, and what reaches nobody.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use longshore::{
    Context, Draft, Handler, HandlerError, Message, Outcome, Reason, Route, Router, Worker,
};
use queue_under_test::{Log, Order, QueueUnderTest, Refund};
use serde::{Deserialize, Serialize};

type Seen = Log<String>;

struct Billing(Seen);

impl Handler<Order> for Billing {
    async fn handle(&self, order: Order, _: Context) -> Result<(), HandlerError> {
        self.0.add(format!("billed {}", order.id));
        Ok(())
    }
}

/// Handles two types.
struct Desk(Seen);

impl Handler<Order> for Desk {
    async fn handle(&self, order: Order, _: Context) -> Result<(), HandlerError> {
        self.0.add(format!("order {}", order.id));
        Ok(())
    }
}

impl Handler<Refund, Outcome> for Desk {
    async fn handle(&self, refund: Refund, _: Context) -> Result<Outcome, HandlerError> {
        self.0.add(format!("refund {}", refund.order));
        Ok(Outcome::Complete)
    }
}

async fn on_refund(_: Refund, _: Context) -> Result<(), HandlerError> {
    Ok(())
}

async fn publish_one_of_each(under_test: &QueueUnderTest) {
    under_test.publish(&Order { id: 1 }).await;
    under_test.publish(&Refund { order: 2 }).await;
}

/// What a router makes of one order and one refund.
async fn handled_by(router: Router, seen: Seen) -> Vec<String> {
    let under_test = QueueUnderTest::new();
    publish_one_of_each(&under_test).await;
    let worker = under_test.worker(router).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert!(under_test.letters().await.is_empty());
    seen.all()
}

#[tokio::test(start_paused = true)]
async fn a_struct_and_a_closure_share_a_queue() {
    let seen = Seen::new();
    let log = seen.clone();
    let router =
        Router::new()
            .handle(Billing(seen.clone()))
            .handle_fn(move |refund: Refund, cx| {
                let log = log.clone();
                async move {
                    log.add(format!("{} {}", cx.message_type(), refund.order));
                    Ok(())
                }
            });
    assert_eq!(handled_by(router, seen).await, ["billed 1", "refund 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_struct_in_an_arc_and_a_function_item_are_handlers() {
    let seen = Seen::new();
    let billing = Arc::new(Billing(seen.clone()));
    let router = Router::new()
        .handle(Arc::clone(&billing))
        .handle_fn(on_refund);
    assert_eq!(handled_by(router, seen).await, ["billed 1"]);
    assert_eq!(
        billing.0.all(),
        ["billed 1"],
        "the one given is the one used"
    );
}

#[tokio::test(start_paused = true)]
async fn one_struct_handles_two_types_when_each_is_named() {
    let seen = Seen::new();
    let desk = Arc::new(Desk(seen.clone()));
    let router = Router::new()
        .handle::<Order, _>(Arc::clone(&desk))
        .handle::<Refund, _>(desk);
    assert_eq!(handled_by(router, seen).await, ["order 1", "refund 2"]);
}

#[tokio::test(start_paused = true)]
async fn handlers_share_state_without_globals() {
    let total = Arc::new(AtomicU64::new(0));
    let (of_orders, of_refunds) = (Arc::clone(&total), Arc::clone(&total));
    let router = Router::new()
        .handle_fn(move |order: Order, _| {
            let total = Arc::clone(&of_orders);
            async move {
                total.fetch_add(order.id, Ordering::Relaxed);
                Ok(())
            }
        })
        .handle_blocking(move |refund: Refund, _| {
            of_refunds.fetch_add(refund.order * 10, Ordering::Relaxed);
            Ok(())
        });
    handled_by(router, Seen::new()).await;
    assert_eq!(total.load(Ordering::Relaxed), 21);
}

#[test]
fn the_shape_in_the_readme_infers_its_types() {
    let billing = Billing(Seen::new());
    let router = Router::new()
        .handle(billing)
        .handle_fn(|m: Refund, cx| async move {
            let _ = (m.order, cx.attempt());
            Ok(())
        });
    let _ = router;
}

#[tokio::test(start_paused = true)]
async fn the_fallback_gets_what_has_no_route_and_only_that() {
    let seen = Seen::new();
    let log = seen.clone();
    let router = Router::new()
        .handle(Billing(seen.clone()))
        .fallback(move |cx| {
            let log = log.clone();
            async move {
                let body = String::from_utf8_lossy(&cx.envelope().body).into_owned();
                log.add(format!("fallback {} {body}", cx.message_type()));
                Ok(Outcome::Complete)
            }
        });
    let handled = handled_by(router, seen).await;
    assert_eq!(handled, ["billed 1", r#"fallback refund {"order":2}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_type_without_a_handler_becomes_a_dead_letter_at_once() {
    let under_test = QueueUnderTest::new();
    publish_one_of_each(&under_test).await;
    let started = tokio::time::Instant::now();
    let worker = under_test.worker(Router::new().handle(Billing(Seen::new())));
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    let letter = under_test.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::NoHandler, 1));
    assert!(letter.detail.contains("\"refund\""), "{}", letter.detail);
    assert_eq!(&letter.envelope.body[..], br#"{"order":2}"#);
    assert!(started.elapsed().as_millis() < 500, "no retry came before");
    worker.stop().await;
}

/// What becomes of a body of type `order.placed`.
async fn set_aside(content_type: &'static str, body: Vec<u8>) -> longshore::DeadLetter {
    let under_test = QueueUnderTest::new();
    let seen = Seen::new();
    under_test
        .publish_raw("order.placed", content_type, body)
        .await;
    let worker = under_test.worker(Router::new().handle(Billing(seen.clone())));
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert!(seen.all().is_empty(), "no handler saw it");
    under_test.letter().await
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_body_becomes_a_dead_letter_that_repeats_none_of_it() {
    let canary = r#"{"id":"4111-1111-1111-1111"}"#;
    for body in [canary, r#"{"4111":1}"#, "4111 not json", "{\"id\":4111", ""] {
        let letter = set_aside("application/json", body.into()).await;
        assert_eq!((letter.reason, letter.attempts), (Reason::Undecodable, 1));
        assert!(!letter.detail.contains("4111"), "{}", letter.detail);
        assert!(letter.detail.contains("order.placed"), "{}", letter.detail);
        assert_eq!(&letter.envelope.body[..], body.as_bytes(), "kept whole");
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_type_without_a_codec_is_undecodable() {
    let letter = set_aside("application/x-python-serialize", br#"{"id":1}"#.to_vec()).await;
    assert_eq!(letter.reason, Reason::Undecodable);
    assert!(
        letter.detail.contains("x-python-serialize"),
        "{}",
        letter.detail
    );
}

#[tokio::test(start_paused = true)]
async fn json_nested_100_000_deep_is_undecodable_and_harms_nobody() {
    let body = "[".repeat(100_000) + &"]".repeat(100_000);
    let letter = set_aside("", body.into()).await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Undecodable, 1));
    assert!(letter.detail.len() < 200, "{}", letter.detail);
}

#[tokio::test(start_paused = true)]
async fn neighbours_of_what_nobody_can_read_are_handled() {
    let under_test = QueueUnderTest::new();
    let seen = Seen::new();
    for id in 0..20 {
        under_test
            .publish_raw("order.placed", "", b"}{".to_vec())
            .await;
        under_test.publish_raw("nobody's", "", b"{}".to_vec()).await;
        under_test.publish(&Order { id }).await;
    }
    let worker = under_test.worker(Router::new().handle(Billing(seen.clone())));
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!((seen.len(), under_test.letters().await.len()), (20, 40));
}

#[tokio::test(start_paused = true)]
async fn a_hostile_type_is_shown_without_its_control_characters() {
    #[derive(Serialize, Deserialize)]
    struct Other;
    impl Message for Other {
        const TYPE: &'static str = "another";
    }
    let under_test = QueueUnderTest::new();
    under_test.publish(&Other).await;
    let hostile = "a\u{202e}b\u{200b}c";
    let answers = under_test
        .client
        .publish_all(&under_test.queue, [Draft::raw(hostile, "", "{}")])
        .await;
    assert!(
        answers[0].is_ok(),
        "direction marks are no control characters"
    );
    let router = Router::new().route(Route::function(on_refund));
    let worker = Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    for letter in under_test.letters().await {
        assert_eq!(letter.reason, Reason::NoHandler);
        assert!(
            !letter.detail.contains(['\u{202e}', '\u{200b}']),
            "{letter:?}"
        );
    }
}
