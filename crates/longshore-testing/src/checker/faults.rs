//! What may excuse a disturbed message: faults and deaths.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

#[derive(Debug)]
pub(super) struct Faults {
    aftermath: Duration,
    processes_only: BTreeSet<String>,
    active: BTreeMap<String, u32>,
    /// When the first of the active ones began.
    began: Duration,
    /// From the first begin to the last end of faults that overlapped, in order.
    periods: Vec<(Duration, Duration)>,
    killed: HashMap<u32, Duration>,
    last_kill: Option<Duration>,
    last_stop: Option<Duration>,
}

impl Faults {
    pub(super) fn new(aftermath: Duration, processes_only: BTreeSet<String>) -> Self {
        Self {
            aftermath,
            processes_only,
            active: BTreeMap::new(),
            began: Duration::ZERO,
            periods: Vec::new(),
            killed: HashMap::new(),
            last_kill: None,
            last_stop: None,
        }
    }

    pub(super) fn begin(&mut self, at: Duration, fault: &str) {
        if !self.processes_only.contains(fault) {
            if self.active.is_empty() {
                self.began = at;
            }
            *self.active.entry(fault.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn end(&mut self, at: Duration, fault: &str) {
        if self.processes_only.contains(fault) {
            return;
        }
        let Some(times) = self.active.get_mut(fault) else {
            return;
        };
        *times -= 1;
        if *times == 0 {
            self.active.remove(fault);
        }
        if self.active.is_empty() {
            self.periods.push((self.began, at));
        }
    }

    pub(super) fn kill(&mut self, at: Duration, victim: u32) {
        self.killed.entry(victim).or_insert(at);
        self.last_kill = Some(at);
    }

    /// A process left at its deadline what it had not finished, as if it had died.
    pub(super) fn abandon(&mut self, at: Duration) {
        self.last_kill = Some(at);
    }

    pub(super) fn stop(&mut self, at: Duration) {
        self.last_stop = Some(at);
    }

    /// Whether a fault was active between then and now, or ended so shortly before then that not
    /// everybody had noticed.
    pub(super) fn near(&self, since: Duration) -> bool {
        self.between(since, Duration::MAX)
    }

    /// The same, up to a moment before now.
    pub(super) fn between(&self, since: Duration, until: Duration) -> bool {
        let over = |period: &(Duration, Duration)| period.1 + self.aftermath < since;
        let next = self.periods.partition_point(over);
        let ended = self
            .periods
            .get(next)
            .is_some_and(|(began, _)| *began <= until);
        ended || (!self.active.is_empty() && self.began <= until)
    }

    /// Whether this process is dead or about to die.
    pub(super) fn killed(&self, process: u32) -> bool {
        self.killed.contains_key(&process)
    }

    /// Whether that was noted by then.
    pub(super) fn killed_by(&self, process: u32, then: Duration) -> bool {
        self.killed.get(&process).is_some_and(|at| *at <= then)
    }

    pub(super) fn kill_since(&self, since: Duration) -> bool {
        self.last_kill.is_some_and(|at| at >= since)
    }

    /// A fault was near, or some process died.
    pub(super) fn disturbed(&self, since: Duration) -> bool {
        self.near(since) || self.kill_since(since)
    }

    /// A worker was asked to stop.
    pub(super) fn stop_since(&self, since: Duration) -> bool {
        self.last_stop.is_some_and(|at| at >= since)
    }
}
