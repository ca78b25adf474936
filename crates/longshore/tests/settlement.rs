//! How a start of a handler ends, and what that means for its message.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore::{Backoff, Context, DeadLetter, HandlerError, Outcome, Reason, Router};
use queue_under_test::{Log, Order, QueueUnderTest};
use tokio::time::Instant;

const QUICK: Duration = Duration::from_millis(10);

fn quick() -> Backoff {
    Backoff::new(QUICK, QUICK)
}

/// Attempt numbers and when they started.
type Starts = Log<(u32, Instant)>;

/// Runs one order through this handler with three attempts.
async fn run<F>(handler: F) -> (QueueUnderTest, Starts)
where
    F: Fn(Context) -> Result<Outcome, HandlerError> + Clone + Send + Sync + 'static,
{
    let (under_test, starts) = (QueueUnderTest::new(), Starts::new());
    under_test.publish(&Order { id: 1 }).await;
    let log = starts.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let (handler, log) = (handler.clone(), log.clone());
        async move {
            log.add((cx.attempt(), Instant::now()));
            handler(cx)
        }
    });
    let worker = under_test.worker(router).max_attempts(3).backoff(quick());
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    (under_test, starts)
}

fn numbers(starts: &Starts) -> Vec<u32> {
    starts.all().into_iter().map(|(number, _)| number).collect()
}

/// Runs it with errors only; answers the dead letter after three attempts.
async fn exhausted<F>(handler: F) -> DeadLetter
where
    F: Fn() -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
{
    let (under_test, starts) = run(move |_| handler().map(|()| Outcome::Complete)).await;
    assert_eq!(numbers(&starts), [1, 2, 3]);
    let letter = under_test.letter().await;
    assert_eq!((&letter.reason, letter.attempts), (&Reason::Exhausted, 3));
    letter
}

#[tokio::test(start_paused = true)]
async fn success_completes_the_message() {
    let (under_test, starts) = run(|_| Ok(Outcome::Complete)).await;
    assert_eq!(numbers(&starts), [1]);
    assert_eq!(under_test.counts().await, (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_error_is_retried_and_counted_until_the_attempts_are_used_up() {
    let std_error = exhausted(|| {
        "x".parse::<u32>()?;
        Ok(())
    });
    assert_eq!(std_error.await.detail, "invalid digit found in string");
    let text = exhausted(|| Err(format!("no {}", "paper"))?);
    assert_eq!(text.await.detail, "no paper");
    let boxed = exhausted(|| {
        let error: Box<dyn std::error::Error + Send + Sync> = "boxed".into();
        Err(error)?
    });
    assert_eq!(boxed.await.detail, "boxed");
    let io = exhausted(|| Err(std::io::Error::other(std::fmt::Error))?);
    assert!(
        io.await
            .detail
            .contains("an error occurred when formatting")
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_sets_the_message_aside_at_once() {
    let (under_test, starts) = run(|_| Err(HandlerError::permanent("no such customer"))).await;
    assert_eq!(numbers(&starts), [1]);
    let letter = under_test.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Permanent, 1));
    assert_eq!(letter.detail, "no such customer");
    assert_eq!(&letter.envelope.body[..], br#"{"id":1}"#);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_never_early_and_hardly_late() {
    let wait = Duration::from_secs(90);
    let failing = move |_| Err(HandlerError::retry_after(wait, "busy"));
    let choosing = move |_| Ok(Outcome::Retry { after: Some(wait) });
    for (_, starts) in [run(failing).await, run(choosing).await] {
        let starts = starts.all();
        assert_eq!(starts.len(), 3);
        for two in starts.windows(2) {
            let waited = two[1].1 - two[0].1;
            let late = waited.checked_sub(wait).expect("never early");
            assert!(late < Duration::from_millis(50), "{late:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_backoff_before_each_attempt_is_a_pure_function_of_attempt_and_id() {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
    let mut waits = Vec::new();
    for _ in 0..2 {
        let (under_test, starts) = (QueueUnderTest::new(), Starts::new());
        let order = Order { id: 1 };
        let publish = under_test.client.publish(&under_test.queue, &order);
        publish.id("the-same").await.unwrap();
        let log = starts.clone();
        let router = Router::new().handle_fn(move |_: Order, cx: Context| {
            log.add((cx.attempt(), Instant::now()));
            std::future::ready(Err::<(), _>("no".into()))
        });
        let worker = under_test.worker(router).max_attempts(12).backoff(backoff);
        let worker = worker.start().await.unwrap();
        under_test.settled().await;
        worker.stop().await;
        let starts = starts.all();
        assert_eq!(starts.len(), 12);
        for two in starts.windows(2) {
            let (waited, said) = (two[1].1 - two[0].1, backoff.after(two[0].0, "the-same"));
            assert!(
                waited >= said && waited < said + QUICK,
                "{waited:?} {said:?}"
            );
        }
        waits.push(
            starts
                .windows(2)
                .map(|two| two[1].1 - two[0].1)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(waits[0], waits[1]);
    assert!(waits[0][10] > Duration::from_secs(240), "{:?}", waits[0]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_can_choose_backoff_or_the_dead_letters_itself() {
    let (_, starts) = run(|cx| match cx.attempt() {
        1 => Ok(Outcome::Retry { after: None }),
        _ => Ok(Outcome::Complete),
    })
    .await;
    assert_eq!(numbers(&starts), [1, 2]);
    let (under_test, starts) = run(|_| {
        Ok(Outcome::DeadLetter {
            reason: Reason::Other("fraud".into()),
            detail: "two\nlines".to_owned(),
        })
    })
    .await;
    assert_eq!(numbers(&starts), [1]);
    let letter = under_test.letter().await;
    assert_eq!(
        (letter.reason.as_str(), &letter.detail[..]),
        ("fraud", "two\\nlines")
    );
}

#[tokio::test(start_paused = true)]
async fn a_word_that_breaks_the_rule_for_reasons_never_reaches_the_wire() {
    for word in ["Not A Word\r\n", "", "\u{1b}[31m"] {
        let (under_test, _) = run(move |_| {
            Ok(Outcome::DeadLetter {
                reason: Reason::Other(word.into()),
                detail: String::new(),
            })
        })
        .await;
        assert_eq!(
            under_test.letter().await.reason.as_str(),
            "unknown",
            "{word:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_another_attempt_after_the_last_is_exhaustion() {
    let (under_test, starts) = run(|_| Ok(Outcome::Retry { after: None })).await;
    assert_eq!(numbers(&starts), [1, 2, 3]);
    let letter = under_test.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 3));
    assert!(
        letter.detail.contains("asked for another attempt"),
        "{}",
        letter.detail
    );
}

#[tokio::test(start_paused = true)]
async fn one_allowed_attempt_is_one_start() {
    let (under_test, starts) = (QueueUnderTest::new(), Log::new());
    under_test.publish(&Order { id: 1 }).await;
    let log = starts.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        log.add((cx.attempt(), cx.max_attempts()));
        std::future::ready(Err::<(), _>("no".into()))
    });
    let worker = under_test
        .worker(router)
        .max_attempts(1)
        .start()
        .await
        .unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(starts.all(), [(1, 1)]);
    let letter = under_test.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_text_of_a_mebibyte_is_cut_to_a_detail_of_4_kib() {
    for text in ["x".repeat(1 << 20), "é\n".repeat(1 << 19)] {
        let (error, panic) = (text.clone(), text);
        let failed = exhausted(move || Err(error.clone())?).await;
        let panicked = exhausted(move || panic!("{panic}")).await;
        for letter in [failed, panicked] {
            let bytes = letter.detail.len();
            assert!((4_000..=4_096).contains(&bytes), "{bytes}");
            assert!(letter.detail.ends_with('…') && !letter.detail.contains('\n'));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_set_aside_and_never_starts() {
    let (under_test, starts) = (QueueUnderTest::new(), Log::new());
    for (id, expires_after) in [(1, Duration::ZERO), (2, Duration::from_secs(3600))] {
        let order = Order { id };
        let publish = under_test.client.publish(&under_test.queue, &order);
        publish.expires_after(expires_after).await.unwrap();
    }
    let log = starts.clone();
    let router = Router::new().handle_fn(move |order: Order, _| {
        log.add(order.id);
        std::future::ready(Ok(()))
    });
    let worker = under_test.worker(router).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(starts.all(), [2]);
    let letter = under_test.letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Expired, 0));
    assert!(letter.envelope.expires_at.is_some(), "kept complete");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_fires_the_cancellation_and_nothing_of_that_start_counts() {
    let (under_test, seen) = (QueueUnderTest::new(), Log::new());
    under_test.publish(&Order { id: 1 }).await;
    let (log, again) = (seen.clone(), Arc::new(AtomicBool::new(false)));
    let first_may_end = Arc::clone(&again);
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let (log, again) = (log.clone(), Arc::clone(&again));
        async move {
            log.add(format!("start {}", cx.attempt()));
            if cx.attempt() == 1 {
                cx.cancellation().cancelled().await;
                log.add("cancelled".to_owned());
                while !again.load(Ordering::Relaxed) {
                    tokio::time::sleep(QUICK).await;
                }
                return Err(HandlerError::permanent("must not count"));
            }
            Ok(())
        }
    });
    let worker = under_test.worker(router).start().await.unwrap();
    seen.reaches(1).await;
    under_test.broker.lose_locks();
    seen.reaches(3).await;
    first_may_end.store(true, Ordering::Relaxed);
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(seen.len(), 3);
    assert_eq!(seen.all()[0], "start 1");
    assert!(
        seen.all().contains(&"start 2".to_owned()),
        "the loss counted as a start"
    );
    assert_eq!(
        under_test.counts().await,
        (0, 0, 0, 0),
        "no dead letter from the first"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_processes_all_died_is_set_aside_with_the_number_of_its_starts() {
    for (allowed, reason) in [(1, Reason::Abandoned), (3, Reason::Crashed)] {
        let (under_test, seen) = (QueueUnderTest::new(), Log::new());
        under_test.publish(&Order { id: 1 }).await;
        let log = seen.clone();
        let router = Router::new().handle_fn(move |_: Order, cx: Context| {
            log.add(cx.attempt());
            async move {
                cx.cancellation().cancelled().await;
                Ok(())
            }
        });
        let worker = under_test.worker(router).max_attempts(allowed);
        let worker = worker.start().await.unwrap();
        for starts in 1..=allowed {
            seen.reaches(starts as usize).await;
            under_test.broker.lose_locks();
        }
        under_test.settled().await;
        worker.stop().await;
        assert_eq!(seen.all(), (1..=allowed).collect::<Vec<_>>());
        let letter = under_test.letter().await;
        assert_eq!((letter.reason, letter.attempts), (reason, allowed));
    }
}
