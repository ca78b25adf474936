//! Where a suspect lies while it runs.
//!
//! RabbitMQ counts what comes back, started or not, so its count says nothing in the quarantine. A
//! suspect starts as a copy that has this start counted, in a queue of this process alone, its cell.
//! When the process dies the broker moves the copy back to the quarantine, and whatever only waited
//! there is as it was.

use std::time::Duration;

use lapin::types::ShortString;
use longshore_core::{Delivery, Envelope, Receipt, Result};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    convert::Arrived,
    copy::again,
    error::closed,
    held::{End, stale},
    intake::Intake,
    publisher::{Letter, Publisher},
};

/// How long a confirmed copy may take to arrive. By then the broker has moved it back.
const ARRIVAL: Duration = Duration::from_secs(5);

/// What was handed out of the quarantine.
#[derive(Debug)]
pub(crate) struct Suspect {
    tag: u64,
    envelope: Envelope,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    HandedOut,
    /// Its copy has so many attempts counted, and this is told the tag.
    Starting(u32, Option<oneshot::Sender<u64>>),
    /// It runs as the copy with this tag.
    Started(u64),
    /// It could not be started; where its copy is, that has gone back.
    GivenUp,
}

impl Suspect {
    pub(crate) fn new(delivery: &Delivery) -> Self {
        let [tag, _] = delivery.receipt.tag;
        Self {
            tag,
            envelope: delivery.envelope.clone(),
            stage: Stage::HandedOut,
        }
    }

    /// The tag it was handed out with.
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// The tag it is held under.
    pub(crate) fn held_as(&self) -> u64 {
        match self.stage {
            Stage::Started(copy) => copy,
            _ => self.tag,
        }
    }

    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(..))
    }

    pub(crate) fn begin(&mut self, attempt: u32) -> (Envelope, oneshot::Receiver<u64>) {
        let (told, arrival) = oneshot::channel();
        self.stage = Stage::Starting(attempt, Some(told));
        (self.envelope.clone(), arrival)
    }

    /// Takes its own copy.
    pub(crate) fn takes(&mut self, tag: u64, arrived: &Arrived) -> bool {
        let Stage::Starting(attempt, told) = &mut self.stage else {
            return false;
        };
        let same = *attempt == arrived.attempts && self.envelope.id == arrived.envelope.id;
        let told = if same { told.take() } else { None };
        told.is_some_and(|told| told.send(tag).is_ok())
    }

    /// The start has ended, well or not.
    pub(crate) fn started(&mut self, copy: Option<u64>) {
        self.stage = copy.map_or(Stage::GivenUp, Stage::Started);
    }
}

/// Notes the start of a delivery where that needs a note: durably, and what is noted is held from now
/// on in the place of what was handed out.
///
/// # Errors
/// [`Stale`](longshore_core::ErrorKind::Stale) where it is lost, or it is noted and has gone back. Any
/// other error: it is as before.
pub(crate) async fn start(
    copies: &Publisher,
    intake: &Intake,
    receipt: Receipt,
    attempt: u32,
) -> Result<()> {
    let [tag, _] = receipt.tag;
    let held = intake.held(receipt.scope).ok_or_else(stale)?;
    let Some(Some(cell)) = held.cell.get().cloned() else {
        // The broker counts the returns of what dies here; there is nothing to note before.
        return match held.is_live() && held.holds(tag) {
            true => Ok(()),
            false => Err(stale()),
        };
    };
    let (envelope, arrival) = held.begin_start(tag, attempt)?;
    let noted = async {
        let properties = again(&envelope, attempt)?;
        let letter = Letter::copy(ShortString::default(), cell, properties, &envelope);
        let published = copies.publish(vec![letter]).await.pop();
        published.unwrap_or_else(|| Err(closed()))
    };
    if let Err(error) = noted.await {
        let _ = held.end_start(tag, None);
        held.abandon(tag);
        return Err(error);
    }
    let acknowledged = held.end(&[tag], End::Acknowledge).await;
    let copy = match timeout(ARRIVAL, arrival).await {
        Ok(Ok(copy)) => Some(copy),
        _ => None,
    };
    let started = held.end_start(tag, copy);
    intake.freed(&held);
    acknowledged.and(started)
}
