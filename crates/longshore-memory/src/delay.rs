//! Messages waiting for their time.

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{Error, ErrorKind, Result, defaults};

use crate::entry::Entry;

/// Ordered by due time, then by arrival, so that equal times keep their order.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    waiting: BTreeMap<(Duration, u64), Entry>,
    serial: u64,
}

impl Delayed {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the first is due, by the broker's clock.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.waiting.keys().next().map(|(due, _)| *due)
    }

    /// Keeps an entry until `due`.
    pub(crate) fn add(&mut self, due: Duration, entry: Entry) {
        self.serial += 1;
        self.waiting.insert((due, self.serial), entry);
    }

    /// The first entry that is due.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Entry> {
        let first = self.waiting.first_entry()?;
        let (due, _) = *first.key();
        if due > now {
            return None;
        }
        let mut entry = first.remove();
        entry.since = due;
        Some(entry)
    }
}

/// An error for a delay beyond the longest.
pub(crate) fn delay_is_possible(delay: Duration) -> Result<()> {
    if delay > defaults::LONGEST_DELAY {
        let (asked, most) = (delay.as_secs(), defaults::LONGEST_DELAY.as_secs());
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("a delay of {asked} s is longer than {most} s"),
        ));
    }
    Ok(())
}
