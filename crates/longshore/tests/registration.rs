//! Mistakes in registration panic at the caller's line and name the fix.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod start_up_mistake;

use std::time::Duration;

use longshore::{
    Backoff, Connect, Context, HandlerError, Message, Outcome, Queue, Route, Router, Topic, Worker,
};
use queue_under_test::{Order, QueueUnderTest};
use serde::{Deserialize, Serialize};
use start_up_mistake::mistake_in;

async fn on_order(_: Order, _: Context) -> Result<(), HandlerError> {
    Ok(())
}

async fn on_anything(_: Context) -> Result<Outcome, HandlerError> {
    Ok(Outcome::Complete)
}

fn router() -> Router {
    Router::new().handle_fn(on_order)
}

#[test]
fn two_handlers_for_one_type_are_refused() {
    let line = line!() + 1;
    let mistake = mistake_in(|| router().handle_fn(on_order));
    assert_mistake!(line, mistake, "\"order.placed\"", "`Message::TYPE`");
    let line = line!() + 1;
    let mistake = mistake_in(|| router().route(Route::function(on_order)));
    assert_mistake!(line, mistake, "a handler for \"order.placed\" already");
    let line = line!() + 1;
    let mistake = mistake_in(|| router().handle_blocking(|_: Order, _| Ok(())));
    assert_mistake!(line, mistake, "a handler for \"order.placed\" already");
}

struct Silent;

impl longshore::Handler<Order> for Silent {
    async fn handle(&self, _: Order, _: Context) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn two_structs_for_one_type_are_refused() {
    let line = line!() + 1;
    let mistake = mistake_in(|| router().handle(Silent));
    assert_mistake!(line, mistake, "a handler for \"order.placed\" already");
}

macro_rules! message {
    ($name:ident, $type:expr) => {
        #[derive(Serialize, Deserialize)]
        struct $name;
        impl Message for $name {
            const TYPE: &'static str = $type;
        }
    };
}

message!(Nameless, "");
message!(Steering, "order\u{1b}[2Jplaced");
message!(
    TooLong,
    "0123456789012345678901234567890123456789012345678901234567890123456789\
     01234567890123456789012345678901234567890123456789012345678"
);

async fn on<M: Message>(_: M, _: Context) -> Result<(), HandlerError> {
    Ok(())
}

#[test]
fn message_types_that_do_not_fit_the_wire_are_refused_and_shown_harmlessly() {
    let line = line!() + 1;
    let mistake = mistake_in(|| Router::new().handle_fn(on::<Nameless>));
    assert_mistake!(line, mistake, "1 to 128 bytes", "`Message::TYPE`");
    let line = line!() + 1;
    let mistake = mistake_in(|| Router::new().handle_fn(on::<TooLong>));
    assert_mistake!(line, mistake, "1 to 128 bytes");
    let line = line!() + 1;
    let mistake = mistake_in(|| Router::new().handle_fn(on::<Steering>));
    assert!(!mistake.text.contains('\u{1b}'), "{mistake:?}");
    assert_mistake!(line, mistake, "no control characters");
}

#[test]
fn a_second_fallback_is_refused() {
    let line = line!() + 1;
    let mistake = mistake_in(|| router().fallback(on_anything).fallback(on_anything));
    assert_mistake!(line, mistake, "a router has one");
}

#[test]
fn a_router_without_routes_is_refused_and_a_fallback_alone_is_one() {
    let under_test = QueueUnderTest::new();
    let _ = under_test.worker(Router::new().fallback(on_anything));
    let (client, queue) = (&under_test.client, &under_test.queue);
    let line = line!() + 1;
    let mistake = mistake_in(|| Worker::new(client, queue, Router::new()));
    assert_mistake!(line, mistake, "add one with `handle`");
}

#[test]
fn names_of_queues_and_topics_that_do_not_fit_are_refused() {
    for name in ["", "a b", "orders.dlq", "amq.direct", "{orders}"] {
        let line = line!() + 1;
        let mistake = mistake_in(|| Queue::new(name));
        assert_mistake!(line, mistake, "choose another name for the queue");
        let line = line!() + 1;
        let mistake = mistake_in(|| Topic::new(name));
        assert_mistake!(line, mistake, "choose another name for the topic");
    }
}

#[test]
fn lanes_sessions_and_windows_that_do_not_fit_are_refused() {
    let orders = || Queue::new("orders");
    let many: Vec<String> = (0..17).map(|n| format!("lane-{n}")).collect();
    let _ = orders().lanes(&many[..15]);
    for lanes in [
        vec!["high", "high"],
        vec!["normal", "high", "normal"],
        vec!["a b"],
        vec!["very.high"],
        vec![""],
        many.iter().map(String::as_str).collect(),
    ] {
        let line = line!() + 1;
        let mistake = mistake_in(|| orders().lanes(lanes));
        assert_mistake!(line, mistake, "lane");
    }
    for partitions in [0, 3, 12, 257, 512] {
        let line = line!() + 1;
        let mistake = mistake_in(|| orders().sessions(partitions));
        assert_mistake!(line, mistake, "power of two from 1 to 256", "try ");
    }
    for window in [0, 999, 30 * 24 * 3600 * 1000 + 1].map(Duration::from_millis) {
        let line = line!() + 1;
        let mistake = mistake_in(|| orders().dedup_window(window));
        assert_mistake!(line, mistake, "between 1s and 2592000s");
    }
    let line = line!() + 1;
    let mistake = mistake_in(|| orders().sessions(16).lanes(["high"]));
    assert_mistake!(line, mistake, "use two queues");
    let line = line!() + 1;
    let mistake = mistake_in(|| orders().lanes(["high"]).sessions(16));
    assert_mistake!(line, mistake, "use two queues");
}

#[test]
fn numbers_outside_their_range_are_refused_with_the_range() {
    let under_test = QueueUnderTest::new();
    let day = Duration::from_secs(24 * 3600);
    let ms = Duration::from_millis;
    type Setting = Box<dyn Fn(Worker) -> Worker>;
    let absurd: [(&str, Setting); 15] = [
        (
            "max_attempts must lie between 1 and 1000; got 0",
            Box::new(|w| w.max_attempts(0)),
        ),
        ("got 1001", Box::new(|w| w.max_attempts(1_001))),
        (
            "concurrency must lie between 1 and 10000; got 0",
            Box::new(|w| w.concurrency(0)),
        ),
        ("got 10001", Box::new(|w| w.concurrency(10_001))),
        (
            "prefetch must lie between 1 and 1000; got 0",
            Box::new(|w| w.prefetch(0)),
        ),
        ("got 1001", Box::new(|w| w.prefetch(1_001))),
        (
            "time_limit must lie between 1ns and 86400s",
            Box::new(|w| w.time_limit(Duration::ZERO)),
        ),
        (
            "got 86400.001s",
            Box::new(move |w| w.time_limit(day + ms(1))),
        ),
        (
            "lock must lie between 1s and 3600s",
            Box::new(move |w| w.lock(ms(999))),
        ),
        ("got 3600.001s", Box::new(move |w| w.lock(ms(3_600_001)))),
        (
            "stop_deadline must lie between 0ns and 3600s",
            Box::new(move |w| w.stop_deadline(ms(3_600_001))),
        ),
        (
            "rate must lie between 1 and 1000000; got 0",
            Box::new(|w| w.rate(0)),
        ),
        ("got 1000001", Box::new(|w| w.rate(1_000_001))),
        (
            "dead_letter_limit must lie between 1 and",
            Box::new(|w| w.dead_letter_limit(0)),
        ),
        (
            "doubles from more than zero to at most one year",
            Box::new(|w| w.backoff(Backoff::new(Duration::ZERO, Duration::ZERO))),
        ),
    ];
    for (says, set) in absurd {
        let mistake = mistake_in(|| set(under_test.worker(router())));
        assert!(mistake.text.contains(says), "{says}: {mistake:?}");
        assert!(file!().ends_with(&mistake.file), "{mistake:?}");
    }
    let line = line!() + 1;
    let mistake = mistake_in(|| Route::function(on_order).time_limit(Duration::ZERO));
    assert_mistake!(line, mistake, "24 hours");
    let line = line!() + 1;
    let mistake = mistake_in(|| Connect::new("memory:").max_body(0));
    assert_mistake!(line, mistake, "16 MiB");
}

#[tokio::test]
async fn a_number_set_before_the_start_or_while_running_is_refused_at_the_callers_line() {
    let under_test = QueueUnderTest::new();
    let worker = under_test.worker(router());
    let line = line!() + 1;
    let mistake = mistake_in(|| worker.concurrency(0));
    assert_mistake!(line, mistake, "between 1 and 10000; got 0");
    let worker = under_test.worker(router()).start().await.unwrap();
    let line = line!() + 1;
    let mistake = mistake_in(|| worker.set_concurrency(0));
    assert_mistake!(line, mistake, "between 1 and 10000; got 0");
    let line = line!() + 1;
    let mistake = mistake_in(|| worker.set_prefetch(1_001));
    assert_mistake!(line, mistake, "between 1 and 1000; got 1001");
    worker.stop().await;
}
