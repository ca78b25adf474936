//! The starts that have not ended.

use std::{collections::BTreeMap, time::Duration};

use crate::history::{Event, Record};

/// One start of a message, by its place among the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) message: usize,
    pub(super) attempt: u32,
    pub(super) process: u32,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) process: u32,
    pub(super) token: u64,
    pub(super) at: Duration,
    /// The ledger has rejected its effect.
    pub(super) stale: bool,
    /// Another one started that had no business beside it, unless this one ends without a trace.
    pub(super) overlapped: Option<Box<Record>>,
}

impl Run {
    /// Its line of the history, without its lane.
    pub(super) fn record(&self, message: u64) -> Record {
        Record {
            at: self.at,
            process: self.process,
            event: Event::Start {
                message,
                attempt: self.attempt,
                token: self.token,
                lane: None,
                intact: true,
            },
        }
    }

    /// The token of the one that overlapped it is larger: its session has moved.
    pub(super) fn outgrown(&self) -> bool {
        let newer = self.overlapped.as_deref().map(|record| &record.event);
        matches!(newer, Some(Event::Start { token, .. }) if *token > self.token)
    }
}

/// message starts again.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<usize, Vec<Run>>);

impl Runs {
    /// Adds one.
    pub(super) fn begin(&mut self, message: usize, run: Run) {
        self.0.entry(message).or_default().push(run);
    }

    /// Takes one out.
    pub(super) fn end(&mut self, name: Name) -> Option<Run> {
        let runs = self.0.get_mut(&name.message)?;
        let place = runs
            .iter()
            .position(|run| run.attempt == name.attempt && run.process == name.process)?;
        let run = runs.remove(place);
        if runs.is_empty() {
            self.0.remove(&name.message);
        }
        Some(run)
    }

    pub(super) fn get_mut(&mut self, name: Name) -> Option<&mut Run> {
        let runs = self.0.get_mut(&name.message)?;
        runs.iter_mut()
            .find(|run| run.attempt == name.attempt && run.process == name.process)
    }

    /// Those of a message, the oldest first.
    pub(super) fn of(&mut self, message: usize) -> &mut [Run] {
        self.0.get_mut(&message).map_or(&mut [], Vec::as_mut_slice)
    }

    /// All that are left, in the order of their messages.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (usize, Run)> + use<> {
        let runs = std::mem::take(&mut self.0).into_iter();
        runs.flat_map(|(message, runs)| runs.into_iter().map(move |run| (message, run)))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
