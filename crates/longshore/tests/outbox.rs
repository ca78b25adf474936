//! What a handler publishes through its context: after success, before completion, or not at all.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{sync::Arc, time::Duration};

use longshore::{
    Backoff, Context, Draft, Envelope, ErrorKind, HandlerError, Outcome, Queue, Router, Topic,
};
use queue_under_test::{Log, Order, QueueUnderTest, Refund};
use reading_ahead::{Faults, ReadingAhead};

const QUICK: Duration = Duration::from_millis(10);

/// An order comes in, refunds may go out.
struct Pipeline {
    under_test: QueueUnderTest,
    faults: Arc<Faults>,
    refunds: Queue,
    /// What arrived downstream, in order.
    arrived: Log<Envelope>,
}

impl Pipeline {
    fn new() -> Self {
        let mut faults = None;
        let under_test = QueueUnderTest::on(|inner| {
            let (transport, controls) = ReadingAhead::over(inner);
            faults = Some(controls);
            transport
        });
        Self {
            under_test,
            faults: faults.unwrap(),
            refunds: Queue::new("refunds"),
            arrived: Log::new(),
        }
    }

    /// Handles one order with three attempts, then looks downstream.
    async fn run<F, Fut>(&self, handler: F) -> Vec<Envelope>
    where
        F: Fn(Context, Queue) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
    {
        self.under_test.publish(&Order { id: 1 }).await;
        let refunds = self.refunds.clone();
        let router =
            Router::new().handle_fn(move |_: Order, cx: Context| handler(cx, refunds.clone()));
        let worker = self.under_test.worker(router).max_attempts(3);
        let worker = worker.backoff(Backoff::new(QUICK, QUICK));
        let worker = worker.time_limit(Duration::from_secs(1));
        let worker = worker.start().await.unwrap();
        self.under_test.settled().await;
        worker.stop().await;
        self.downstream().await
    }

    async fn downstream(&self) -> Vec<Envelope> {
        let arrived = self.arrived.clone();
        let router = Router::new().fallback(move |cx| {
            arrived.add(cx.envelope().clone());
            std::future::ready(Ok(Outcome::Complete))
        });
        // A client of its own, so that the faults are not its.
        let client = self.under_test.another_client();
        let worker = longshore::Worker::new(&client, &self.refunds, router).concurrency(1);
        let worker = worker.start().await.unwrap();
        loop {
            let left = client.stats(&self.refunds).await.unwrap();
            if left.ready + left.in_flight.unwrap() + left.delayed.unwrap() == 0 {
                break;
            }
            tokio::time::sleep(QUICK).await;
        }
        worker.stop().await;
        self.arrived.all()
    }
}

fn ids(envelopes: &[Envelope]) -> Vec<String> {
    envelopes.iter().map(|e| e.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_arrives_in_order_once_it_has_succeeded() {
    let pipeline = Pipeline::new();
    let arrived = pipeline.run(|cx, refunds| async move {
        for order in 1..=3 {
            let refund = Refund { order };
            cx.publish(&refunds, &refund)
                .key("k")
                .correlation_id(cx.id())
                .await?;
        }
        Ok(Outcome::Complete)
    });
    let arrived = arrived.await;
    let bodies: Vec<_> = arrived.iter().map(|e| e.body.to_vec()).collect();
    let body = |n| format!("{{\"order\":{n}}}").into_bytes();
    assert_eq!(bodies, [body(1), body(2), body(3)]);
    assert!(arrived.iter().all(|e| e.key.as_deref() == Some("k")));
    assert!(
        arrived
            .iter()
            .all(|e| e.correlation_id.as_ref().is_some_and(|c| c.len() == 32))
    );
    let mut ids = ids(&arrived);
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_arrives_of_a_start_that_did_not_succeed() {
    type Ends = fn() -> Result<Outcome, HandlerError>;
    let ends: [Ends; 5] = [
        || Err("failed".into()),
        || Err(HandlerError::permanent("failed")),
        || panic!("failed"),
        || Ok(Outcome::Retry { after: None }),
        || {
            Ok(Outcome::DeadLetter {
                reason: longshore::Reason::Permanent,
                detail: String::new(),
            })
        },
    ];
    for end in ends {
        let pipeline = Pipeline::new();
        let arrived = pipeline.run(move |cx, refunds| async move {
            cx.publish(&refunds, &Refund { order: 1 }).await?;
            end()
        });
        assert!(arrived.await.is_empty());
        assert_eq!(pipeline.under_test.letters().await.len(), 1);
    }
    let pipeline = Pipeline::new();
    let arrived = pipeline.run(|cx, refunds| async move {
        cx.publish(&refunds, &Refund { order: 1 }).await?;
        std::future::pending().await
    });
    assert!(arrived.await.is_empty(), "nor of one past its time limit");
}

#[tokio::test(start_paused = true)]
async fn each_start_begins_with_nothing_kept_and_draws_the_same_ids() {
    let pipeline = Pipeline::new();
    let seen = Log::new();
    let log = seen.clone();
    let arrived = pipeline.run(move |cx, refunds| {
        log.add(cx.idempotency_key().to_owned());
        async move {
            let attempt = u64::from(cx.attempt());
            cx.publish(&refunds, &Refund { order: attempt }).await?;
            cx.publish(&refunds, &Refund { order: attempt }).await?;
            if attempt < 3 {
                return Err("again".into());
            }
            Ok(Outcome::Complete)
        }
    });
    let arrived = arrived.await;
    assert!(
        arrived.iter().all(|e| &e.body[..] == br#"{"order":3}"#),
        "of the last start alone"
    );
    let parent = &seen.all()[0];
    let derived = [0, 1].map(|index| longshore_core::derived_id(parent, index).to_string());
    assert_eq!(ids(&arrived), derived);
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_not_accepted_retries_the_parent_and_repeats_the_ids() {
    let pipeline = Pipeline::new();
    let faults = Arc::clone(&pipeline.faults);
    let starts = Log::new();
    let log = starts.clone();
    let arrived = pipeline.run(move |cx, refunds| {
        log.add(cx.attempt());
        let fault = (cx.attempt() == 1).then_some(ErrorKind::Unknown);
        Faults::set(&faults.publish, fault);
        async move {
            cx.publish(&refunds, &Refund { order: 1 }).await?;
            Ok(Outcome::Complete)
        }
    });
    assert_eq!(arrived.await.len(), 1);
    assert_eq!(starts.all(), [1, 2]);
    let settled = pipeline.faults.settlements();
    assert!(
        settled[0].starts_with("Retry") && settled[1] == "Complete",
        "{settled:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_parent_whose_publish_is_never_accepted_becomes_a_dead_letter_that_says_so() {
    let pipeline = Pipeline::new();
    let nowhere = Topic::new("nobody-listens");
    let arrived = pipeline.run(move |cx, _| {
        let nowhere = nowhere.clone();
        async move {
            cx.publish(&nowhere, &Refund { order: 1 }).await?;
            Ok(Outcome::Complete)
        }
    });
    assert!(arrived.await.is_empty());
    let letter = pipeline.under_test.letter().await;
    assert_eq!((letter.reason.as_str(), letter.attempts), ("exhausted", 3));
    assert!(letter.detail.contains("nobody-listens"), "{letter:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_there_before_its_parent_is_completed() {
    let pipeline = Pipeline::new();
    Faults::set(&pipeline.faults.settle, Some(ErrorKind::Unavailable));
    pipeline.under_test.publish(&Order { id: 1 }).await;
    let refunds = pipeline.refunds.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let refunds = refunds.clone();
        async move {
            cx.publish(&refunds, &Refund { order: 1 }).await?;
            Ok(())
        }
    });
    let worker = pipeline.under_test.worker(router).start().await.unwrap();
    let mut looks = 0;
    while pipeline.downstream().await.is_empty() {
        looks += 1;
        assert!(looks < 1_000, "nothing arrived");
    }
    assert_eq!(
        pipeline.under_test.counts().await,
        (0, 1, 0, 0),
        "still locked"
    );
    Faults::set(&pipeline.faults.settle, None);
    pipeline.under_test.settled().await;
    worker.stop().await;
    assert_eq!(pipeline.faults.settlements(), ["Complete"]);
}

#[tokio::test(start_paused = true)]
async fn limits_reserved_names_and_delays_are_looked_at_when_it_is_published() {
    let pipeline = Pipeline::new();
    let arrived = pipeline.run(|cx, refunds| async move {
        let refund = Refund { order: 1 };
        for name in ["longshore-attempt", "X-Death", "x-delay", "Longshore-Key"] {
            let answer = cx.publish(&refunds, &refund).header(name, "1").await;
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
        let year = Duration::from_secs(367 * 24 * 3600);
        let answer = cx.publish(&refunds, &refund).delay(year).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
        let answer = cx.publish(&refunds, &refund).id("x".repeat(129)).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
        for _ in 0..10_000 {
            cx.publish(&refunds, &refund).await?;
        }
        let answer = cx.publish(&refunds, &refund).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Full);
        Ok(Outcome::Complete)
    });
    assert_eq!(arrived.await.len(), 10_000);
    assert!(pipeline.under_test.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_trace_context_travels_on_unless_the_handler_sets_its_own_or_it_is_too_long() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = "00-ffffffffffffffffffffffffffffffff-00f067aa0ba902b7-01";
    for (state, travels) in [("a=1".to_owned(), true), ("a".repeat(513), false)] {
        let pipeline = Pipeline::new();
        let (client, queue) = (&pipeline.under_test.client, &pipeline.under_test.queue);
        let order = Draft::new(&Order { id: 2 })
            .header("traceparent", parent)
            .header("tracestate", state);
        client.publish_all(queue, [order]).await;
        let arrived = pipeline.run(move |cx, refunds| async move {
            let refund = Refund { order: 1 };
            if cx.header("traceparent").is_some() {
                cx.publish(&refunds, &refund).await?;
                cx.publish(&refunds, &refund)
                    .header("traceparent", own)
                    .await?;
            }
            Ok(Outcome::Complete)
        });
        let arrived = arrived.await;
        let parents: Vec<_> = arrived.iter().map(|e| e.header("traceparent")).collect();
        assert_eq!(parents, [Some(parent), Some(own)]);
        assert_eq!(arrived[0].header("tracestate"), travels.then_some("a=1"));
    }
}
