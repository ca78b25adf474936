//! What a delivery has to pass before its handler may start.

use std::{sync::Arc, time::Duration};

use longshore_core::{Delivery, Error, ErrorKind, Part};

use super::{SharedRef, intake::Desk};
use crate::client::no_answer;

/// How long a delivery is kept when the broker could not note its start.
const NOT_NOTED: Duration = Duration::from_secs(1);

/// Whether a delivery may start.
#[derive(Debug)]
pub(super) enum Admission {
    /// Now, in this process.
    Start,
    /// Nobody can say, so it goes back at no cost to its attempts.
    Refused(Error),
    /// Its lock is gone: it belongs to somebody else, and is not settled here.
    Stale,
}

/// A delivery with the word on its start.
pub(super) type Admitted = (Admission, Delivery, Arc<Desk>);

/// Whether anybody has to be asked at all. The ordinary delivery starts in place.
pub(super) fn must_ask(delivery: &Delivery) -> bool {
    must_note(delivery)
}

/// Asks everybody who has a say in it.
pub(super) async fn admit(_shared: SharedRef, delivery: Delivery, desk: Arc<Desk>) -> Admitted {
    if must_note(&delivery) {
        let admission = note(&delivery, &desk).await;
        if !matches!(admission, Admission::Start) {
            return (admission, delivery, desk);
        }
    }
    (Admission::Start, delivery, desk)
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
