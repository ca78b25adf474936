//! What a delivery has to pass before its handler may start.

use std::{future::Future, sync::Arc, time::Duration};

use longshore_core::{Delivery, Error, ErrorKind, Part};

use super::{Shared, SharedRef, dedup::Word, desk::Desk, handle::State};
use crate::{
    answer::{self, Answer},
    client::no_answer,
};

/// How long a delivery is kept when the broker could not note its start.
const NOT_NOTED: Duration = Duration::from_secs(1);

/// Whether a delivery may start.
#[derive(Debug)]
pub(super) enum Admission {
    /// Now, in this process.
    Start,
    /// Nobody can say, so it goes back at no cost to its attempts.
    Refused(Error),
    /// Another copy has its id: it goes back for this long, at no cost to its attempts.
    Waits(Duration),
    /// A copy of it was completed inside the dedup window.
    Duplicate,
    /// Its lock is gone: it belongs to somebody else, and is not settled here.
    Stale,
}

/// A delivery with the word on its start.
pub(super) type Admitted = (Admission, Delivery, Arc<Desk>);

/// Whether anybody has to be asked at all. The ordinary delivery starts in place.
pub(super) fn must_ask(shared: &Shared, delivery: &Delivery) -> bool {
    must_note(delivery) || shared.dedup.must_ask(delivery)
}

/// Asks everybody who has a say in it.
pub(super) async fn admit(shared: SharedRef, delivery: Delivery, desk: Arc<Desk>) -> Admitted {
    if shared.dedup.must_ask(&delivery) {
        let admission = unstopped(&shared, look_up(&shared, &delivery)).await;
        if !matches!(admission, Admission::Start) {
            return (admission, delivery, desk);
        }
    }
    if must_note(&delivery) {
        let admission = note(&delivery, &desk).await;
        if !matches!(admission, Admission::Start) {
            return (admission, delivery, desk);
        }
    }
    (Admission::Start, delivery, desk)
}

/// Asks for the id. A request that was answered before is answered the same again.
async fn look_up(shared: &Shared, delivery: &Delivery) -> Admission {
    let reply = loop {
        match shared.dedup.ask(delivery).await {
            Word::Start => return Admission::Start,
            // Nothing leaves its place in a session.
            Word::Wait(after) if matches!(delivery.part, Part::Partition { .. }) => {
                tokio::time::sleep(after).await;
            }
            Word::Wait(after) => return Admission::Waits(after),
            Word::Duplicate(reply) => break reply,
        }
    };
    let answer = reply.and_then(Answer::stored);
    let Some(out) = answer.and_then(|answer| answer.to(&delivery.envelope, delivery.attempt))
    else {
        return Admission::Duplicate;
    };
    loop {
        match answer::send(&shared.client, out.clone()).await {
            Ok(()) => return Admission::Duplicate,
            Err(error) if error.is_transient() => tokio::time::sleep(NOT_NOTED).await,
            Err(error) => {
                tracing::warn!(queue = %shared.work.queue, %error, "a request was not answered again");
                return Admission::Duplicate;
            }
        }
    }
}

/// What is asked, or going back where the worker stops or pauses before there is an answer.
async fn unstopped(shared: &Shared, asking: impl Future<Output = Admission>) -> Admission {
    let mut told = shared.told.clone();
    tokio::select! {
        biased;
        admission = asking => admission,
        _ = told.wait_for(|control| control.state != State::Running) => Admission::Waits(Duration::ZERO),
    }
}

/// The broker counts a start only if it was told before: where an earlier one may have killed its
/// process, and in a partition, where messages are tried again without going back.
fn must_note(delivery: &Delivery) -> bool {
    delivery.suspect || (matches!(delivery.part, Part::Partition { .. }) && delivery.attempt > 1)
}

async fn note(delivery: &Delivery, desk: &Desk) -> Admission {
    let starts = [(delivery.receipt, delivery.attempt)];
    let mut answers = desk.settler.start(&starts).await;
    match answers.pop().unwrap_or_else(|| Err(no_answer())) {
        Ok(()) => Admission::Start,
        Err(error) if error.kind() == ErrorKind::Stale => Admission::Stale,
        Err(error) => {
            // It goes back, and would be here again at once.
            tokio::time::sleep(NOT_NOTED).await;
            Admission::Refused(error)
        }
    }
}
