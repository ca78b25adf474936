//! What many simulations have come to.

use std::{collections::BTreeMap, fmt, time::Duration};

use longshore_testing::{
    faulty::Fault,
    history::{Answer, Event},
};

use crate::{Outcome, fleet::Run};

/// Failed seeds that are told in full.
const TOLD: usize = 3;
/// From so many seeds on every fault must have happened.
const ENOUGH: u64 = 200;

/// What many simulations have come to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Simulations that came to an end.
    pub seeds: u64,
    /// Publishes, each try counted.
    pub published: u64,
    /// Of these, with an unknown answer.
    pub unknown: u64,
    /// Starts of handlers.
    pub starts: u64,
    /// Of these, not the first of their message.
    pub redeliveries: u64,
    /// Effects that were refused because their session was somebody else's.
    pub stale: u64,
    /// Dead letters at the end.
    pub dead: u64,
    /// Partitions that came to another owner.
    pub owner_changes: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Simulations that do not count, and why.
    pub invalid: BTreeMap<u64, String>,
    /// Seeds that broke a promise.
    pub failed: Vec<u64>,
    /// What the first of them did.
    pub told: Vec<String>,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, run: Run) {
        match run {
            Run::Over(outcome) => self.count(&outcome),
            Run::Failed(seed, why) => self.fail(seed, format!("could not begin: {why}")),
            Run::Stalled(seed) => {
                self.fail(seed, "did not end in real time: something spins".to_owned());
            }
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
        for record in &outcome.records {
            match &record.event {
                Event::Publish(_) => self.published += 1,
                Event::Answered {
                    answer: Answer::Unknown,
                    ..
                } => self.unknown += 1,
                Event::Start { attempt, .. } => {
                    self.starts += 1;
                    self.redeliveries += u64::from(*attempt > 1);
                }
                Event::Effect {
                    effect: longshore_testing::history::Effect::Stale,
                    ..
                } => self.stale += 1,
                Event::Dead { .. } => self.dead += 1,
                Event::Killed { .. } => self.kills += 1,
                Event::Owns { partition, .. } => {
                    let before = owners.insert(partition, record.process);
                    self.owner_changes += u64::from(before.is_some_and(|b| b != record.process));
                }
                _ => {}
            }
        }
        for (fault, times) in &outcome.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        if outcome.has_failed() {
            self.fail(outcome.seed, outcome.to_string());
        } else if !outcome.missing.is_empty() {
            self.invalid
                .insert(outcome.seed, outcome.missing.join(", "));
        }
    }

    fn fail(&mut self, seed: u64, what: String) {
        self.failed.push(seed);
        if self.told.len() < TOLD {
            self.told.push(format!(
                "seed {seed}: {what}\n    again: cargo xtask simulate --seed {seed} --history"
            ));
        }
    }

    /// Faults that never happened, where there was every opportunity.
    pub fn never_happened(&self) -> Vec<&'static str> {
        let names = Fault::ALL.iter().map(|fault| fault.name());
        let never = |name: &&str| self.faults.get(name).is_none_or(|times| *times == 0);
        match self.seeds >= ENOUGH {
            true => names.filter(never).collect(),
            false => Vec::new(),
        }
    }

    /// Whether every promise was kept, and enough was seen to say so.
    pub fn has_passed(&self) -> bool {
        self.failed.is_empty() && self.invalid.is_empty() && self.never_happened().is_empty()
    }

    /// The table, with what it took.
    pub fn table(&self, took: Duration) -> String {
        let mut text = self.to_string();
        let minutes = took.as_secs_f64() / 60.0;
        let rate = self.seeds as f64 / minutes.max(f64::MIN_POSITIVE);
        text.push_str(&format!("{:<24}{rate:>12.0}\n", "seeds a minute"));
        text
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for told in &self.told {
            writeln!(f, "{told}\n")?;
        }
        for (seed, why) in self.invalid.iter().take(TOLD) {
            writeln!(f, "seed {seed} does not count: {why}")?;
        }
        let never = self.never_happened();
        if !never.is_empty() {
            writeln!(f, "never happened: {}", never.join(", "))?;
        }
        for (what, times) in [
            ("seeds", self.seeds),
            ("failed", self.failed.len() as u64),
            ("invalid", self.invalid.len() as u64),
            ("publishes", self.published),
            ("  unknown", self.unknown),
            ("starts", self.starts),
            ("  redeliveries", self.redeliveries),
            ("  refused effects", self.stale),
            ("dead letters", self.dead),
            ("owner changes", self.owner_changes),
            ("kills", self.kills),
        ] {
            writeln!(f, "{what:<24}{times:>12}")?;
        }
        for (fault, times) in &self.faults {
            writeln!(f, "  {fault:<22}{times:>12}")?;
        }
        if self.failed.len() > TOLD {
            writeln!(f, "failed seeds: {:?}", self.failed)?;
        }
        Ok(())
    }
}
