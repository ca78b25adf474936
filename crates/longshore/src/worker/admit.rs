//! What a delivery has to pass before its handler may start.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use longshore_core::{
    Delivery, Error, ErrorKind, Part,
    chaos::{CrashPoint, Flaw, noting},
};

use super::{
    Shared, SharedRef,
    dedup::Word,
    desk::Desk,
    handle::State,
    tenure::{self, Known},
};
use crate::{answer::Answer, client::no_answer};

/// How long a delivery is kept when the broker could not note its start.
const NOT_NOTED: Duration = Duration::from_secs(1);

/// Whether a delivery may start.
#[derive(Debug)]
pub(super) enum Admission {
    /// Now, in this process, with the state of its session where that was asked for.
    Start(Option<Option<Bytes>>),
    /// Its session is set aside.
    SetAside,
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
pub(super) fn must_ask(shared: &Shared, delivery: &Delivery, desk: &Desk) -> bool {
    must_note(delivery)
        || shared.dedup.must_ask(delivery)
        || tenure::must_ask(shared, delivery, desk)
}

/// Asks everybody who has a say in it.
pub(super) async fn admit(shared: SharedRef, delivery: Delivery, desk: Arc<Desk>) -> Admitted {
    let admission = ask_all(&shared, &delivery, &desk).await;
    let admission = admission.unwrap_or_else(|refused| refused);
    (admission, delivery, desk)
}

/// `Err`: it does not start. The broker is told last, since what it was told counts as a start.
async fn ask_all(
    shared: &Shared,
    delivery: &Delivery,
    desk: &Desk,
) -> Result<Admission, Admission> {
    let mut state = None;
    if tenure::must_ask(shared, delivery, desk) {
        match unstopped(shared, desk, tenure::ask(shared, delivery, desk)).await? {
            Known::Nothing => {}
            Known::State(loaded) => state = Some(loaded),
            Known::SetAside => return Err(Admission::SetAside),
        }
    }
    if shared.dedup.must_ask(delivery) {
        unstopped(shared, desk, look_up(shared, delivery)).await??;
    }
    if must_note(delivery) {
        noting(&delivery.envelope, delivery.attempt);
        note(delivery, desk).await?;
        CrashPoint::StartNoted.reached();
    }
    Ok(Admission::Start(state))
}

/// Asks for the id. A request that was answered before is answered the same again.
async fn look_up(shared: &Shared, delivery: &Delivery) -> Result<(), Admission> {
    let reply = loop {
        match shared.dedup.ask(delivery).await {
            Word::Start => return Ok(()),
            // Nothing leaves its place in a session.
            Word::Wait(after) if matches!(delivery.part, Part::Partition { .. }) => {
                tokio::time::sleep(after).await;
            }
            Word::Wait(after) => return Err(Admission::Waits(after)),
            Word::Duplicate(reply) => break reply,
        }
    };
    let answer = reply.and_then(Answer::stored);
    let Some(out) = answer.and_then(|answer| answer.to(&delivery.envelope, delivery.attempt))
    else {
        return Err(Admission::Duplicate);
    };
    loop {
        match shared.client.answer(out.clone()).await {
            Ok(()) => return Err(Admission::Duplicate),
            Err(error) if error.is_transient() => tokio::time::sleep(NOT_NOTED).await,
            Err(error) => {
                tracing::warn!(queue = %shared.work.queue, %error, "a request was not answered again");
                return Err(Admission::Duplicate);
            }
        }
    }
}

/// What is asked, or going back where the worker stops or pauses, or the partition has to go, before
/// there is an answer.
async fn unstopped<T>(
    shared: &Shared,
    desk: &Desk,
    asking: impl Future<Output = T>,
) -> Result<T, Admission> {
    let mut told = shared.told.clone();
    tokio::select! {
        biased;
        answer = asking => Ok(answer),
        () = desk.closing.cancelled() => Err(Admission::Waits(Duration::ZERO)),
        _ = told.wait_for(|control| control.state != State::Running) =>
            Err(Admission::Waits(Duration::ZERO)),
    }
}

/// The broker counts a start only if it was told before: where an earlier one may have killed its
/// process, and in a partition, where messages are tried again without going back.
fn must_note(delivery: &Delivery) -> bool {
    let again = matches!(delivery.part, Part::Partition { .. }) && delivery.attempt > 1;
    delivery.suspect || (again && !Flaw::AttemptsInMemory.on())
}

async fn note(delivery: &Delivery, desk: &Desk) -> Result<(), Admission> {
    let starts = [(delivery.receipt, delivery.attempt)];
    let mut answers = desk.settler.start(&starts).await;
    match answers.pop().unwrap_or_else(|| Err(no_answer())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Stale => Err(Admission::Stale),
        Err(error) => {
            // It goes back, and would be here again at once.
            tokio::time::sleep(NOT_NOTED).await;
            Err(Admission::Refused(error))
        }
    }
}
