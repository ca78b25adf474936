//! A delivery of the quarantine on its way to its start.

use longshore_core::{Delivery, Envelope};
use tokio::sync::oneshot;

use crate::convert::Arrived;

/// What was handed out of the quarantine.
#[derive(Debug)]
pub(super) struct Suspect {
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
    pub(super) fn new(delivery: &Delivery) -> Self {
        let [tag, _] = delivery.receipt.tag;
        Self {
            tag,
            envelope: delivery.envelope.clone(),
            stage: Stage::HandedOut,
        }
    }

    /// The tag it was handed out with.
    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    /// The tag it is held under.
    pub(super) fn held_as(&self) -> u64 {
        match self.stage {
            Stage::Started(copy) => copy,
            _ => self.tag,
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(..))
    }

    pub(super) fn begin(&mut self, attempt: u32) -> (Envelope, oneshot::Receiver<u64>) {
        let (told, arrival) = oneshot::channel();
        self.stage = Stage::Starting(attempt, Some(told));
        (self.envelope.clone(), arrival)
    }

    /// Takes its own copy.
    pub(super) fn takes(&mut self, tag: u64, arrived: &Arrived) -> bool {
        let Stage::Starting(attempt, told) = &mut self.stage else {
            return false;
        };
        let same = *attempt == arrived.attempts && self.envelope.id == arrived.envelope.id;
        let told = if same { told.take() } else { None };
        told.is_some_and(|told| told.send(tag).is_ok())
    }

    /// The start has ended, well or not.
    pub(super) fn started(&mut self, copy: Option<u64>) {
        self.stage = copy.map_or(Stage::GivenUp, Stage::Started);
    }
}
