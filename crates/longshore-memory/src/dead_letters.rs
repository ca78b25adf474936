//! Messages set aside.

use std::{collections::BTreeMap, ops::Bound, time::SystemTime};

use longshore_core::{
    DeadLetter, Error, ErrorKind, Reason, Result, Text, chaos::Flaw, defaults, printable,
};

use crate::{entry::Entry, place::Origin};

/// A message with why and where it was set aside.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) entry: Entry,
    pub(crate) from: Origin,
    reason: Reason,
    detail: String,
    attempts: u32,
    at: SystemTime,
}

/// The dead letters of one queue, the oldest first. Their ids are their serial numbers.
#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    letters: BTreeMap<u64, Dead>,
    serial: u64,
}

impl DeadLetters {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Sets a message aside.
    pub(crate) fn add(
        &mut self,
        mut entry: Entry,
        from: Origin,
        (reason, detail): (Reason, String),
        attempts: u32,
        at: SystemTime,
    ) {
        if Flaw::DeadLetterCut.on() {
            let bytes = entry.envelope.body.len();
            entry.envelope.body.truncate(bytes.saturating_sub(1));
        }
        self.serial += 1;
        let dead = Dead {
            entry,
            from,
            reason,
            detail: cut(detail),
            attempts,
            at,
        };
        self.letters.insert(self.serial, dead);
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, id: &Text) -> Option<Dead> {
        self.letters.remove(&serial_of(id)?)
    }

    /// A page of them.
    pub(crate) fn page(&self, after: Option<&Text>, limit: usize) -> Result<Vec<DeadLetter>> {
        let from = match after {
            None => Bound::Unbounded,
            Some(id) => Bound::Excluded(serial_of(id).ok_or_else(|| {
                let shown = printable(id, 64);
                Error::new(
                    ErrorKind::Invalid,
                    format!("\"{shown}\" is no id of a dead letter"),
                )
            })?),
        };
        let page = self.letters.range((from, Bound::Unbounded)).take(limit);
        Ok(page.map(|(serial, dead)| show(*serial, dead)).collect())
    }
}

fn show(serial: u64, dead: &Dead) -> DeadLetter {
    let id = format!("{serial:016x}");
    let mut letter = DeadLetter::new(id.into(), dead.entry.envelope.clone(), dead.reason.clone());
    letter.detail.clone_from(&dead.detail);
    letter.attempts = dead.attempts;
    letter.at = Some(dead.at);
    letter
}

fn serial_of(id: &Text) -> Option<u64> {
    (id.len() == 16).then(|| u64::from_str_radix(id, 16).ok())?
}

/// At most 4 KiB, cut between characters.
fn cut(mut detail: String) -> String {
    if detail.len() > defaults::DETAIL_BYTES {
        let mut end = defaults::DETAIL_BYTES;
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
    }
    detail
}
