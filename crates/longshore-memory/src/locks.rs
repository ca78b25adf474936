//! The deliveries one source holds.

use longshore_core::chaos::Flaw;

use crate::entry::Entry;

/// A message handed out under a lock.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) entry: Entry,
    /// Never used twice, so that the receipt of an earlier tenant of the slot is stale.
    serial: u64,
    /// Whether its loss counts as a start: that of the first is always taken for one, that of
    /// a later one only where its start was noted.
    pub(crate) counts: bool,
    /// The number of its latest noted start, 0 where none was.
    pub(crate) noted: u32,
}

/// Slots that are used again, so that a steady stream of deliveries allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    slots: Vec<Option<Locked>>,
    free: Vec<usize>,
    serial: u64,
}

impl Locks {
    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Locks an entry and answers the tag of its receipt.
    pub(crate) fn hold(&mut self, entry: Entry) -> [u64; 2] {
        self.serial += 1;
        let locked = Some(Locked {
            counts: !entry.is_noted(),
            noted: 0,
            serial: self.serial,
            entry,
        });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = locked;
                slot
            }
            None => {
                self.slots.push(locked);
                self.slots.len() - 1
            }
        };
        [slot as u64, self.serial]
    }

    /// What a tag names, while it is held.
    pub(crate) fn get_mut(&mut self, tag: [u64; 2]) -> Option<&mut Locked> {
        self.slots
            .get_mut(usize::try_from(tag[0]).ok()?)?
            .as_mut()
            .filter(|locked| locked.serial == tag[1] || Flaw::UnfencedSettle.on())
    }

    /// Unlocks what a tag names.
    pub(crate) fn release(&mut self, tag: [u64; 2]) -> Option<Entry> {
        self.take(tag).map(|locked| locked.entry)
    }

    /// Unlocks what a tag names, with what is known of its start.
    pub(crate) fn take(&mut self, tag: [u64; 2]) -> Option<Locked> {
        self.get_mut(tag)?;
        let slot = usize::try_from(tag[0]).ok()?;
        let locked = self.slots[slot].take()?;
        self.free.push(slot);
        Some(locked)
    }

    /// Unlocks everything, the latest first, with the tags they had.
    pub(crate) fn release_all(&mut self) -> Vec<([u64; 2], Locked)> {
        self.free.clear();
        let mut all: Vec<_> = self
            .slots
            .drain(..)
            .enumerate()
            .filter_map(|(slot, locked)| {
                locked.map(|locked| ([slot as u64, locked.serial], locked))
            })
            .collect();
        all.sort_by_key(|(tag, _)| std::cmp::Reverse(tag[1]));
        all
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::Envelope;

    use super::*;

    #[test]
    fn a_receipt_of_an_earlier_tenant_is_stale() {
        let entry = || Entry::new(Envelope::new("t", "b"), Default::default());
        let mut locks = Locks::default();
        let first = locks.hold(entry());
        assert!(locks.release(first).is_some());
        let second = locks.hold(entry());
        assert_eq!((first[0], locks.len()), (second[0], 1));
        assert!(locks.release(first).is_none());
        assert!(locks.release([9, 9]).is_none());
        assert_eq!(locks.release_all().len(), 1);
        assert!(locks.release(second).is_none());
        assert_eq!(locks.len(), 0);
    }
}
