//! From what happened to what the broker is told. Pure: no clock, no I/O.

use std::{
    any::Any,
    time::{Duration, SystemTime},
};

use longshore_core::{
    Defect, Delivery, Outcome, Reason, Verdict,
    chaos::Flaw,
    defaults::{DETAIL_BYTES, LONGEST_DELAY},
    printable,
};

use super::Settings;
use crate::{Context, handler_error::Next, route::Answered};

/// How one start of a handler ended.
#[derive(Debug)]
pub(super) enum Ending {
    Answered(Outcome),
    /// With the text of its error.
    Failed(Next, String),
    Panicked(String),
    TimeLimit(Duration),
    /// The stop deadline passed while it was running.
    Stopped,
}

impl Ending {
    /// What was answered. Asks the error for its text, which is code of the user's.
    pub(super) fn of(answered: Answered) -> Self {
        match answered {
            Ok(outcome) => Self::Answered(outcome),
            Err(error) => Self::Failed(error.next(), error.detail()),
        }
    }
}

/// Why this delivery must not start, as the verdict it gets instead.
pub(super) fn refusal(
    delivery: &mut Delivery,
    max_attempts: u32,
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
    if delivery.attempt > max_attempts || (delivery.suspect && Flaw::SuspectsAreDead.on()) {
        let (reason, detail) = match max_attempts {
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
pub(super) fn verdict(ending: Ending, cx: &Context, settings: &Settings) -> Verdict {
    let attempt = cx.attempt();
    let backoff = || settings.backoff.after(attempt, cx.idempotency_key());
    let (after, detail) = match ending {
        Ending::Answered(Outcome::Complete) => return Verdict::Complete,
        Ending::Answered(Outcome::DeadLetter { reason, detail }) => return dead(reason, &detail),
        Ending::Answered(Outcome::Retry { after }) => (
            after.unwrap_or_else(backoff),
            "the handler asked for another attempt".to_owned(),
        ),
        Ending::Answered(_) => (backoff(), "an outcome this worker does not know".to_owned()),
        Ending::Failed(Next::Never, detail) => return dead(Reason::Permanent, &detail),
        Ending::Failed(Next::Backoff, detail) => (backoff(), detail),
        Ending::Failed(Next::After(after), detail) => (after, detail),
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
        after: after.min(LONGEST_DELAY),
    }
}

/// Why nobody handles a message without a key in a queue with sessions.
pub(super) fn key_missing() -> Defect {
    Defect::new(
        Reason::KeyMissing,
        "the queue has sessions, and the message has no key",
    )
}

/// What becomes of a message whose session is set aside.
pub(super) fn session_set_aside() -> Verdict {
    dead(
        Reason::SessionSetAside,
        "an earlier message of its session is a dead letter, and the session was set aside",
    )
}

fn dead(reason: Reason, detail: &str) -> Verdict {
    Verdict::DeadLetter {
        // A word of the handler's own may break the rule for such words.
        reason: match reason {
            Reason::Other(word) => Reason::parse(&word),
            known => known,
        },
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
