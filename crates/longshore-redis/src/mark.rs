//! What becomes of the mark of an id, as the scripts take it.

use std::time::Duration;

use longshore_core::{MarkChange, MarkWrite};
use redis::Cmd;

use crate::scripts::whole_ms;

/// Adds the four values of a change that follow each other in every script: change, owner, value,
/// ms.
pub(crate) fn add_change(command: &mut Cmd, write: &MarkWrite) {
    let (change, value, lasts) = match &write.change {
        MarkChange::Done { window, reply } => {
            let value = match reply {
                Some(reply) => [b"d:", &reply[..]].concat(),
                None => b"d".to_vec(),
            };
            ("done", value, *window)
        }
        MarkChange::Waiting { attempt, at_most } => {
            ("waiting", format!("w{attempt}").into_bytes(), *at_most)
        }
        MarkChange::Released => ("released", Vec::new(), Duration::ZERO),
    };
    command
        .arg(change)
        .arg(&*write.owner)
        .arg(value)
        .arg(expiry_ms(lasts));
}

/// An expiry as the server takes it: neither none nor one past the end of its clock.
pub(crate) fn expiry_ms(lasts: Duration) -> u64 {
    const HUNDRED_YEARS: u64 = 100 * 366 * 24 * 60 * 60 * 1000;
    whole_ms(lasts).clamp(1, HUNDRED_YEARS)
}
