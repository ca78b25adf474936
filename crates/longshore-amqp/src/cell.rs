//! Where a suspect lies while it runs.
//!
//! RabbitMQ counts what comes back, started or not, so its count says nothing in the quarantine. A
//! suspect starts as a copy that has this start counted, in a queue of this process alone, its cell.
//! When the process dies the broker moves the copy back to the quarantine, and whatever only waited
//! there is as it was.

use std::time::Duration;

use lapin::types::ShortString;
use longshore_core::{Receipt, Result};
use tokio::time::timeout;

use crate::{
    copy::again,
    error::closed,
    held::{End, stale},
    intake::Intake,
    publisher::{Letter, Publisher},
};

/// How long a confirmed copy may take to arrive. By then the broker has moved it back.
const ARRIVAL: Duration = Duration::from_secs(5);

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
    let (envelope, mut arrival) = held.begin_start(tag, attempt)?;
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
    let copy = match timeout(ARRIVAL, &mut arrival).await {
        Ok(arrived) => arrived.ok(),
        // Closed first: what arrives from now on is told that nobody waits, and is handed out.
        Err(_) => {
            arrival.close();
            arrival.try_recv().ok()
        }
    };
    let started = held.end_start(tag, copy);
    intake.freed(&held);
    acknowledged.and(started)
}
