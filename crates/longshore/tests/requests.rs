//! Requests and their replies: typed, matched, faults, time-outs, streams, and what nobody asked for.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod reading_ahead;

use std::{future::IntoFuture, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use longshore::{
    Backoff, Context, Envelope, ErrorKind, Handler, HandlerError, Message, Reply, Request,
    RequestError, Router,
};
use longshore_core::{Destination, Outgoing};
use queue_under_test::{Log, Order, QueueUnderTest, until};
use reading_ahead::{Faults, ReadingAhead};
use serde::{Deserialize, Serialize};

const QUICK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct GetQuote {
    symbol: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Quote {
    Working(u8),
    Price(u64),
}

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

impl Request for GetQuote {
    type Reply = Quote;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Closed {
    until: u64,
}

impl Message for Closed {
    const TYPE: &'static str = "market.closed";
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OtherFault;

impl Message for OtherFault {
    const TYPE: &'static str = "other";
}

struct Desk;

impl Handler<GetQuote, Reply<Quote>> for Desk {
    async fn handle(&self, ask: GetQuote, cx: Context) -> Result<Reply<Quote>, HandlerError> {
        // The later asked, the sooner answered.
        tokio::time::sleep(Duration::from_millis(100 - ask.symbol % 100)).await;
        match (ask.symbol, cx.attempt()) {
            (13, _) => Err(HandlerError::fault(&Closed { until: 9 })),
            (14, _) => Err(HandlerError::permanent("the secret of the desk")),
            (15, 1) => Err("not the first time".into()),
            (16, _) => Err("never".into()),
            (symbol, _) => Ok(Reply(Quote::Price(symbol * 2))),
        }
    }
}

fn desk() -> Router {
    Router::new().handle::<GetQuote, _>(Desk)
}

fn ask(under_test: &QueueUnderTest, symbol: u64) -> longshore::Ask<'_, GetQuote> {
    let request = GetQuote { symbol };
    under_test.client.request(&under_test.queue, &request)
}

async fn work(under_test: &QueueUnderTest, router: Router) -> longshore::WorkerHandle {
    let worker = under_test.worker(router).max_attempts(3).concurrency(1_000);
    let worker = worker.prefetch(1_000).backoff(Backoff::new(QUICK, QUICK));
    worker.start().await.unwrap()
}

/// A router that shows each request and answers it when the test says so.
fn shown(asked: &Log<Envelope>) -> Router {
    let asked = asked.clone();
    Router::new().handle_fn(move |ask: GetQuote, cx: Context| {
        asked.add(cx.envelope().clone());
        async move {
            tokio::time::sleep(Duration::from_secs(60 * 60)).await;
            Ok(Reply(Quote::Price(ask.symbol)))
        }
    })
}

#[tokio::test]
async fn many_requests_are_out_at_a_time_and_each_gets_its_own_reply() {
    let under_test = QueueUnderTest::new();
    let worker = work(&under_test, desk()).await;
    let asked = (100..600).map(|symbol| ask(&under_test, symbol).into_future());
    for (symbol, reply) in (100..600).zip(join_all(asked).await) {
        assert_eq!(reply.unwrap(), Quote::Price(symbol * 2));
    }
    under_test.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_raised_fault_travels_with_its_type_and_the_request_is_done() {
    let under_test = QueueUnderTest::new();
    let worker = work(&under_test, desk()).await;
    let RequestError::Fault(fault) = ask(&under_test, 13).await.unwrap_err() else {
        panic!("no fault")
    };
    assert_eq!(fault.reason(), "fault");
    assert_eq!(fault.get::<Closed>(), Some(Closed { until: 9 }));
    assert_eq!(fault.get::<OtherFault>(), None);
    under_test.settled().await;
    assert_eq!(under_test.counts().await, (0, 0, 0, 0));
    worker.stop().await;
}

#[tokio::test]
async fn whoever_asked_is_told_of_the_dead_letter_but_not_what_the_handler_said() {
    let under_test = QueueUnderTest::new();
    let worker = work(&under_test, desk()).await;
    for (symbol, reason) in [(14, "permanent"), (16, "exhausted")] {
        let error = ask(&under_test, symbol).await.unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
        let RequestError::Fault(fault) = error else {
            panic!("no fault: {error:?}")
        };
        assert_eq!(fault.reason(), reason);
    }
    under_test.settled().await;
    assert_eq!(under_test.letters().await.len(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_request_that_is_tried_again_is_answered_once() {
    let under_test = QueueUnderTest::new();
    let worker = work(&under_test, desk()).await;
    assert_eq!(ask(&under_test, 15).await.unwrap(), Quote::Price(30));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_reply_in_time_the_request_times_out_and_the_late_reply_resolves_nobody() {
    let under_test = QueueUnderTest::new();
    let patience = Duration::from_millis(20);
    let error = ask(&under_test, 200).timeout(patience).await.unwrap_err();
    assert!(
        matches!(error, RequestError::TimedOut(t) if t == patience),
        "{error:?}"
    );
    let worker = work(&under_test, desk()).await;
    assert_eq!(ask(&under_test, 201).await.unwrap(), Quote::Price(402));
    under_test.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn the_end_of_the_connection_is_told_from_a_time_out() {
    let under_test = QueueUnderTest::new();
    let asked = Log::new();
    let other = under_test.another_client();
    let router = shown(&asked);
    let worker = longshore::Worker::new(&other, &under_test.queue, router)
        .stop_deadline(Duration::ZERO)
        .start()
        .await
        .unwrap();
    let asking = ask(&under_test, 1);
    let closing = async {
        asked.reaches(1).await;
        under_test.client.close().await;
    };
    let (answer, ()) = tokio::join!(asking, closing);
    assert!(
        matches!(answer, Err(RequestError::ConnectionLost)),
        "{answer:?}"
    );
    let error = ask(&under_test, 2).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::NotSent(e) if e.kind() == ErrorKind::Closed),
        "{error:?}"
    );
    worker.stop().await;
}

#[tokio::test]
async fn several_replies_come_as_a_stream_and_the_last_one_last() {
    let under_test = QueueUnderTest::new();
    let router = Router::new().handle_fn(|ask: GetQuote, cx: Context| async move {
        for step in 1..=3 {
            cx.reply_part(&Quote::Working(step)).await?;
        }
        if cx.attempt() == 1 {
            return Err("once more, with all its parts".into());
        }
        Ok(Reply(Quote::Price(ask.symbol)))
    });
    let worker = work(&under_test, router).await;
    let mut replies = ask(&under_test, 7).stream().await.unwrap();
    let mut seen = Vec::new();
    while let Some(reply) = StreamExt::next(&mut replies).await {
        seen.push(reply.unwrap());
    }
    let working = [1, 2, 3, 1, 2, 3].map(Quote::Working);
    assert_eq!(seen, [&working[..], &[Quote::Price(7)]].concat());
    // Whoever wants the result alone gets it alone.
    assert_eq!(ask(&under_test, 8).await.unwrap(), Quote::Price(8));
    worker.stop().await;
}

#[tokio::test]
async fn what_was_forged_or_is_repeated_is_dropped() {
    let under_test = QueueUnderTest::new();
    let asked = Log::new();
    let worker = work(&under_test, shown(&asked)).await;
    let transport = under_test.broker.open();
    let intruding = async {
        asked.reaches(1).await;
        let request = asked.all().remove(0);
        let to = request.reply_to.clone().unwrap();
        let right = request.correlation_id.clone().unwrap();
        assert_eq!(right.len(), 32, "128 bits in hexadecimal");
        let forged = |id: &str, body: &str, number: Option<&str>| {
            let mut envelope = Envelope::new("quote.get.reply", body.to_owned());
            envelope.id = "x".into();
            envelope.correlation_id = Some(id.to_owned().into());
            if let Some(number) = number {
                envelope.headers = vec![
                    ("longshore-reply".into(), "part".into()),
                    ("longshore-reply-number".into(), number.to_owned().into()),
                ];
            }
            Outgoing {
                to: Destination::Reply(to.clone()),
                envelope,
                delay: Duration::ZERO,
                dedup_window: None,
            }
        };
        let part = r#"{"Working":1}"#;
        let answers = transport
            .publish(vec![
                forged("somebody else's", r#"{"Price":1}"#, None),
                forged("", r#"{"Price":1}"#, None),
                forged(&right, part, Some("7")),
                forged(&right, part, Some("7")),
                forged(&right, part, Some("6")),
                forged(&right, r#"{"Price":2}"#, None),
                forged(&right, r#"{"Price":3}"#, None),
            ])
            .await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    };
    let asking = async {
        let mut replies = ask(&under_test, 1).stream().await.unwrap();
        let mut seen = Vec::new();
        while let Some(reply) = replies.next().await {
            seen.push(reply.unwrap());
        }
        seen
    };
    let (seen, ()) = tokio::join!(asking, intruding);
    assert_eq!(seen, [Quote::Working(1), Quote::Price(2)]);
    drop(worker);
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_says_so_without_showing_it() {
    let under_test = QueueUnderTest::new();
    let asked = Log::new();
    let worker = work(&under_test, shown(&asked)).await;
    let transport = under_test.broker.open();
    let answering = async {
        asked.reaches(1).await;
        let request = asked.all().remove(0);
        let mut envelope = Envelope::new("x", "\"4111-1111\"");
        envelope.correlation_id = request.correlation_id;
        let out = Outgoing {
            to: Destination::Reply(request.reply_to.unwrap()),
            envelope,
            delay: Duration::ZERO,
            dedup_window: None,
        };
        transport.publish(vec![out]).await.remove(0).unwrap();
    };
    let (answer, ()) = tokio::join!(ask(&under_test, 1), answering);
    let error = answer.unwrap_err();
    assert!(matches!(error, RequestError::Undecodable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("4111"), "{error:?}");
    drop(worker);
}

#[tokio::test]
async fn a_reply_above_the_limit_ends_the_request_instead_of_repeating_it() {
    #[derive(Serialize, Deserialize)]
    struct Big;
    impl Message for Big {
        const TYPE: &'static str = "big";
    }
    impl Request for Big {
        type Reply = String;
    }
    let under_test = QueueUnderTest::new();
    let router = Router::new().handle_fn(|_: Big, _: Context| async {
        Ok::<_, HandlerError>(Reply("x".repeat(2 * 1024 * 1024)))
    });
    let worker = work(&under_test, router).await;
    let answer = under_test.client.request(&under_test.queue, &Big).await;
    let Err(RequestError::Fault(fault)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(fault.reason(), "permanent");
    assert_eq!(under_test.letter().await.attempts, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_request_is_completed_only_once_its_reply_is_confirmed() {
    let mut faults = None;
    let under_test = QueueUnderTest::on(|inner| {
        let (transport, controls) = ReadingAhead::over(inner);
        faults = Some(controls);
        transport
    });
    let faults: Arc<Faults> = faults.unwrap();
    let started = Log::new();
    let (log, broken) = (started.clone(), Arc::clone(&faults));
    let router = Router::new().handle_fn(move |ask: GetQuote, cx: Context| {
        log.add(cx.attempt());
        // The first reply is not accepted.
        let fault = (cx.attempt() == 1).then_some(ErrorKind::Unknown);
        Faults::set(&broken.publish, fault);
        async move { Ok(Reply(Quote::Price(ask.symbol))) }
    });
    let worker = work(&under_test, router).await;
    assert_eq!(ask(&under_test, 3).await.unwrap(), Quote::Price(3));
    assert_eq!(started.all(), [1, 2]);
    let complete = || faults.settlements().iter().any(|word| word == "Complete");
    until("the request is completed", complete).await;
    assert!(faults.settlements()[0].starts_with("Retry"));
    worker.stop().await;
}

#[tokio::test]
async fn a_message_nobody_waits_for_is_handled_like_any_other() {
    let under_test = QueueUnderTest::new();
    let worker = work(&under_test, desk()).await;
    under_test.publish(&GetQuote { symbol: 100 }).await;
    under_test.publish(&GetQuote { symbol: 13 }).await;
    under_test.settled().await;
    assert_eq!(under_test.letter().await.reason.as_str(), "permanent");
    worker.stop().await;
}

#[tokio::test]
async fn a_reply_part_after_the_end_of_the_handler_is_refused() {
    let under_test = QueueUnderTest::new();
    let kept = Log::new();
    let log = kept.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        log.add(cx);
        async { Ok::<_, HandlerError>(()) }
    });
    let worker = work(&under_test, router).await;
    under_test.publish_orders([1]).await;
    under_test.settled().await;
    let cx = kept.all().remove(0);
    let error = cx.reply_part(&Quote::Working(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    worker.stop().await;
}

#[tokio::test]
async fn replies_that_nobody_takes_are_bounded_and_the_stream_says_so() {
    let under_test = QueueUnderTest::new();
    let router = Router::new().handle_fn(|_: GetQuote, cx: Context| async move {
        for _ in 0..1_100 {
            cx.reply_part(&Quote::Working(0)).await?;
        }
        Ok(Reply(Quote::Price(1)))
    });
    let worker = work(&under_test, router).await;
    let replies = ask(&under_test, 1).stream().await.unwrap();
    under_test.settled().await;
    let seen: Vec<_> = replies.collect().await;
    let (last, parts) = seen.split_last().unwrap();
    assert_eq!(parts.len(), 1_024);
    assert!(parts.iter().all(Result::is_ok));
    assert!(matches!(last, Err(RequestError::Overrun)), "{last:?}");
    worker.stop().await;
}
