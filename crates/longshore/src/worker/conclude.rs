//! From what happened to what the broker is told. Pure: no clock, no I/O.

use std::{
    any::Any,
    time::{Duration, SystemTime},
};

use longshore_core::{Delivery, Outcome, Reason, Verdict, defaults::DETAIL_BYTES, printable};

use super::Settings;
use crate::{handler_error::Next, route::Answered};

/// How one start of a handler ended.
#[derive(Debug)]
pub(super) enum Ending {
    Answered(Answered),
    Panicked(String),
    TimeLimit(Duration),
    /// The stop deadline passed while it was running.
    Stopped,
}

/// Why this delivery must not start, as the verdict it gets instead.
pub(super) fn refusal(
    delivery: &mut Delivery,
    settings: &Settings,
    wall: SystemTime,
) -> Option<Verdict> {
    if let Some(defect) = delivery.defect.take() {
        return Some(dead(defect.reason, &defect.detail));
    }
    if delivery.envelope.expires_at.is_some_and(|at| at <= wall) {
        return Some(dead(
            Reason::Expired,
            "its time had passed before a handler started",
        ));
    }
    if delivery.attempt > settings.max_attempts {
        let (reason, detail) = match settings.max_attempts {
            1 => (
                Reason::Abandoned,
                "its process died, and only one attempt is allowed",
            ),
            _ => (
                Reason::Crashed,
                "its process died during the last allowed attempt",
            ),
        };
        return Some(dead(reason, detail));
    }
    None
}

/// What an ended start means for its message.
pub(super) fn verdict(ending: Ending, attempt: u32, id: &str, settings: &Settings) -> Verdict {
    let backoff = || settings.backoff.after(attempt, id);
    let (after, detail) = match ending {
        Ending::Answered(Ok(Outcome::Complete)) => return Verdict::Complete,
        Ending::Answered(Ok(Outcome::DeadLetter { reason, detail })) => {
            return dead(reason, &detail);
        }
        Ending::Answered(Ok(Outcome::Retry { after })) => (
            after.unwrap_or_else(backoff),
            "the handler asked for another attempt".to_owned(),
        ),
        Ending::Answered(Ok(_)) => (backoff(), "an outcome this worker does not know".to_owned()),
        Ending::Answered(Err(error)) => match error.next() {
            Next::Never => return dead(Reason::Permanent, &error.detail()),
            Next::Backoff => (backoff(), error.detail()),
            Next::After(after) => (after, error.detail()),
        },
        Ending::Panicked(text) => (backoff(), format!("panicked: {text}")),
        Ending::TimeLimit(limit) => (backoff(), format!("the time limit of {limit:?} passed")),
        Ending::Stopped => (
            Duration::ZERO,
            "its worker was stopped while it ran".to_owned(),
        ),
    };
    if attempt >= settings.max_attempts {
        return dead(Reason::Exhausted, &detail);
    }
    Verdict::Retry {
        after: after.min(longshore_core::defaults::LONGEST_DELAY),
    }
}

fn dead(reason: Reason, detail: &str) -> Verdict {
    Verdict::DeadLetter {
        reason,
        detail: printable(detail, DETAIL_BYTES),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(text.unwrap_or("(no text)"), DETAIL_BYTES - 16)
}
