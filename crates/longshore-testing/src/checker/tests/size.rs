//! A long history costs as much for each line as a short one.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::history::{Effect, Ending, Event, Fate};

/// So many messages in sessions and windows, eight lines each; every 50th fails once and every
/// 1,000th dies with its process.
fn observe(messages: u64) -> (Checker, Duration) {
    let mut checker = Checker::new(Rules::default());
    let begun = worked();
    let mut at = Duration::ZERO;
    let mut worker = 9;
    let mut tokens = 1;
    for message in 0..messages {
        let mut add = |process: u32, event: Event| {
            at += Duration::from_micros(10);
            checker.observe(&Record { at, process, event });
        };
        let publish = Publish {
            message: message * 7,
            queue: "orders".to_owned(),
            key: Some(message % 10_000),
            seq: message / 10_000,
            dedup: Some(message),
            delay: Duration::ZERO,
            fate: Fate::Succeed,
        };
        let message = publish.message;
        add(1, Event::Publish(publish));
        let answer = Answer::Confirmed;
        add(1, Event::Answered { message, answer });
        let start = |attempt, token| Event::Start {
            message,
            attempt,
            token,
            lane: None,
            intact: true,
        };
        add(worker, start(1, tokens));
        let mut attempt = 1;
        if message.is_multiple_of(1_000) {
            add(2, Event::Killed { victim: worker });
            (worker, tokens, attempt) = (worker + 1, tokens + 1, 2);
            add(worker, start(attempt, tokens));
        } else if message.is_multiple_of(50) {
            let how = Ending::Failed;
            add(
                worker,
                Event::End {
                    message,
                    attempt,
                    how,
                },
            );
            attempt = 2;
            add(worker, start(attempt, tokens));
        }
        let effect = Effect::Accepted;
        add(
            3,
            Event::Effect {
                message,
                token: tokens,
                effect,
            },
        );
        let how = Ending::Succeeded;
        add(
            worker,
            Event::End {
                message,
                attempt,
                how,
            },
        );
    }
    (checker, worked() - begun)
}

/// How long this thread has worked: others may be working too.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("positive");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("positive"))
}

#[test]
fn a_million_records_take_twice_as_long_as_half_a_million() {
    let (_, half) = observe(100_000);
    let (checker, whole) = observe(200_000);
    assert!(checker.figures.published + checker.figures.starts > 400_000);
    assert!(whole < half * 3, "{half:?}, {whole:?}");
    assert!(whole < Duration::from_secs(30), "{whole:?}");
    // What has ended is not kept, and what is kept is counted by message, session and id.
    assert!(checker.runs.len() <= 5_000, "{}", checker.runs.len());
    assert_eq!(checker.messages.len(), 200_000);
    assert_eq!(checker.sessions.all.len(), 10_000);
    assert_eq!(checker.ids.all.len(), 200_000);
    let report = checker.finish();
    assert!(report.violations.is_empty(), "{}", report.violations[0]);
}

#[test]
fn no_more_than_a_hundred_violations_of_a_rule_are_listed() {
    let mut checker = Checker::new(Rules::default());
    for message in 0..250 {
        let at = Duration::from_millis(message);
        let event = Event::Left { message };
        checker.observe(&Record {
            at,
            process: 9,
            event,
        });
    }
    let report = checker.finish();
    assert_eq!((report.violations.len(), report.unlisted), (100, 150));
}
