//! Processes: what they own, how they stop, how large they are.

use std::{collections::BTreeMap, time::Duration};

use super::{Checker, report::Rule};
use crate::history::{Event, Record};

#[derive(Debug, Default)]
pub(super) struct Processes {
    /// Since when each that was asked to stop is stopping, and how long it has.
    stops: BTreeMap<u32, (Duration, Duration)>,
    granted: BTreeMap<(String, u64), u32>,
    owners: BTreeMap<String, u32>,
}

impl Processes {
    pub(super) fn stopping(&self, process: u32) -> bool {
        self.stops.contains_key(&process)
    }
}

impl Checker {
    pub(super) fn stop_begins(&mut self, record: &Record, within: Duration) {
        self.faults.stop(record.at);
        let stops = &mut self.processes.stops;
        stops.entry(record.process).or_insert((record.at, within));
    }

    /// It has stopped, or is dead.
    pub(super) fn stop_ends(&mut self, record: &Record, process: u32) {
        if let Some((at, within)) = self.processes.stops.remove(&process) {
            let took = record.at.saturating_sub(at);
            if took > within {
                self.faults.abandon(record.at);
            }
            if took > within + self.rules.stop_slack {
                let what = format!("process {process} took {took:?} to stop, of {within:?}");
                let records = [stop_record(process, at, within), record.clone()];
                self.broken(Rule::Stop, what, records);
            }
        }
    }

    /// What is stopping now never will.
    pub(super) fn stop_all(&mut self) {
        for (process, (at, within)) in std::mem::take(&mut self.processes.stops) {
            let what = format!("process {process} never stopped");
            self.broken(Rule::Stop, what, [stop_record(process, at, within)]);
        }
    }

    pub(super) fn owns(&mut self, record: &Record, partition: &str, token: u64) {
        let process = record.process;
        let grant = (partition.to_owned(), token);
        let first = *self.processes.granted.entry(grant).or_insert(process);
        if first != process {
            let what = format!("token {token} of {partition} was granted to process {first} too");
            self.broken(Rule::Fencing, what, [record.clone()]);
        }
        let before = self.processes.owners.insert(partition.to_owned(), process);
        self.figures.owner_changes += u64::from(before.is_some_and(|before| before != process));
    }

    pub(super) fn memory(&mut self, record: &Record, resident: u64) {
        self.figures.memory = self.figures.memory.max(resident);
        if let Some(limit) = self.rules.memory.filter(|limit| resident > *limit) {
            let what = format!("{resident} bytes are resident, of {limit}");
            self.broken(Rule::Memory, what, [record.clone()]);
        }
    }
}

fn stop_record(process: u32, at: Duration, within: Duration) -> Record {
    Record {
        at,
        process,
        event: Event::StopBegins { within },
    }
}
