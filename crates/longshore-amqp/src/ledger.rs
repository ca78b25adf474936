//! What is held of one partition and how often each of it was started.

use std::collections::BTreeMap;

use longshore_core::{Error, ErrorKind, Result, Text};

use crate::marker::{Noted, Notes};

/// The table of one owner, from what the last one left and what has arrived since.
///
/// The broker's counter only says that a message was held before: clean hand-overs count as much as
/// crashes. Whether that was explained the last owner says, and how often it started this table.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Nothing was running when the last owner left.
    was_clean: bool,
    /// The last owner left before it had seen all that one before it had held, and speaks only for what
    /// it has notes of.
    unseen: bool,
    /// What the last owner left, and whether it has come.
    left: BTreeMap<Text, (Noted, bool)>,
    /// How many may come back: as many as one owner holds.
    window: usize,
    arrived: usize,
    /// Everything the last owner held has come.
    complete: bool,
    held: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: Text,
    noted: Noted,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has seen it.
    Waiting,
    /// A handler may run, or have run.
    Taken,
    /// It waits for the next owner.
    Kept,
}

/// A message as the channel brought it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) tag: u64,
    pub(crate) id: Text,
    /// Starts that copies before this one have used up.
    pub(crate) before: u32,
    /// Whether it has been with an owner before.
    pub(crate) again: bool,
}

/// What the table makes of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) attempt: u32,
    pub(crate) suspect: bool,
    /// How often it came back without a word.
    pub(crate) returns: u32,
}

impl Ledger {
    pub(crate) fn new(was_clean: bool, unseen: bool, left: Notes) -> Self {
        let left = left.into_iter().map(|(id, noted)| (id, (noted, false)));
        Self {
            was_clean,
            unseen,
            left: left.collect(),
            window: usize::MAX,
            arrived: 0,
            complete: false,
            held: BTreeMap::new(),
        }
    }

    /// A channel begins to deliver, so many at a time. What an earlier one held comes again.
    pub(crate) fn open(&mut self, window: usize) {
        if !self.held.is_empty() || self.arrived > 0 {
            *self = Self::new(self.is_clean(), self.is_unseen(), self.notes());
        }
        self.window = window;
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) -> Judgement {
        let Arrival {
            tag,
            id,
            before,
            again,
        } = arrival;
        let first = before.saturating_add(1);
        let mut noted = Noted::default();
        let mut judgement = Judgement {
            attempt: first,
            suspect: false,
            returns: 0,
        };
        if again {
            let left = self.left.get_mut(&id);
            let explained = self.was_clean && (left.is_some() || !self.unseen);
            if let Some((left, come)) = left {
                noted = *left;
                *come = true;
            }
            if !explained {
                noted.returns = noted.returns.saturating_add(1);
            }
            // Only first starts are never noted.
            let started = match (noted.starts, explained) {
                (0, true) => before,
                (0, false) => first,
                (starts, _) => starts,
            };
            if !explained {
                // For the next owner, to whom this one may leave it cleanly and unstarted.
                noted.starts = started;
            }
            judgement = Judgement {
                attempt: started.saturating_add(1),
                suspect: !explained,
                returns: noted.returns,
            };
        }
        self.pass(again);
        let state = State::Waiting;
        self.held.insert(tag, Entry { id, noted, state });
        judgement
    }

    /// Something arrived. What was held comes before what never was, and it is no more than one owner
    /// holds: notes of what has not come by then are of no use.
    pub(crate) fn pass(&mut self, again: bool) {
        self.arrived += 1;
        if !again || self.arrived >= self.window {
            self.complete = true;
            self.left.retain(|_, (_, come)| *come);
        }
    }

    /// It was handed out.
    pub(crate) fn take(&mut self, tag: u64) {
        if let Some(entry) = self.held.get_mut(&tag) {
            entry.state = State::Taken;
        }
    }

    /// This start is about to happen. The answer is what was noted before.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`].
    pub(crate) fn start(&mut self, tag: u64, starts: u32) -> Result<u32> {
        match self.held.get_mut(&tag) {
            Some(entry) if entry.state != State::Kept => {
                Ok(std::mem::replace(&mut entry.noted.starts, starts))
            }
            _ => Err(Error::new(
                ErrorKind::Stale,
                "the lock is gone: the partition was lost, or it is settled already",
            )),
        }
    }

    /// This start did not happen.
    pub(crate) fn undo(&mut self, tag: u64, starts: u32, before: u32) {
        if let Some(entry) = self.held.get_mut(&tag)
            && entry.noted.starts == starts
        {
            entry.noted.starts = before;
        }
    }

    /// It is settled.
    pub(crate) fn settle(&mut self, tag: u64) {
        self.held.remove(&tag);
    }

    /// It is the next owner's, whose first start of it has this number.
    pub(crate) fn keep(&mut self, tag: u64, attempt: u32) {
        if let Some(entry) = self.held.get_mut(&tag) {
            entry.noted.starts = attempt.saturating_sub(1);
            entry.state = State::Kept;
        }
    }

    pub(crate) fn is_kept(&self, tag: u64) -> bool {
        let entry = self.held.get(&tag);
        entry.is_some_and(|entry| entry.state == State::Kept)
    }

    /// Whether everything that was handed out is settled or kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.held.values().all(|entry| entry.state != State::Taken)
    }

    /// Whether something is still to come of which nobody has said if it was started.
    pub(crate) fn is_unseen(&self) -> bool {
        (self.unseen || !self.was_clean) && !self.complete
    }

    /// What the next owner must know. Two of one id share the higher numbers.
    pub(crate) fn notes(&self) -> Notes {
        let to_come = self.left.iter().filter(|(_, (_, come))| !come);
        let to_come = to_come.map(|(id, (noted, _))| (id, *noted));
        let held = self.held.values().map(|entry| (&entry.id, entry.noted));
        let mut notes = Notes::new();
        for (id, noted) in to_come.chain(held).filter(|(_, noted)| !noted.is_nothing()) {
            let known = notes.entry(id.clone()).or_default();
            known.starts = known.starts.max(noted.starts);
            known.returns = known.returns.max(noted.returns);
        }
        notes
    }
}

#[cfg(test)]
mod tests;
