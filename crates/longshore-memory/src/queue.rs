//! One queue: its lanes and its dead letters.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use longshore_core::{Name, Part, Receipt, Text};

use crate::{
    dead_letters::DeadLetters,
    entry::Entry,
    lane::{Lane, LaneName},
};

/// A logical queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// In the order they were first declared.
    names: Vec<Name>,
    pub(crate) lanes: BTreeMap<LaneName, Lane>,
    pub(crate) dead: DeadLetters,
    /// Messages in all lanes and dead letters together.
    pub(crate) stored: usize,
}

impl Default for Queue {
    /// A queue with the normal lane alone.
    fn default() -> Self {
        Self {
            names: Vec::new(),
            lanes: BTreeMap::from([(None, Lane::default())]),
            dead: DeadLetters::default(),
            stored: 0,
        }
    }
}

impl Queue {
    /// Adds a lane where it is missing.
    pub(crate) fn add_lane(&mut self, name: &Name) {
        if !self.names.contains(name) {
            self.names.push(name.clone());
            self.lanes.insert(Some(name.clone()), Lane::default());
        }
    }

    /// The lane a publisher means: the one its message names, else the one of that number.
    pub(crate) fn lane_for(&self, part: Part, priority: Option<&Text>) -> Option<LaneName> {
        let Part::Lane(number) = part else {
            return None;
        };
        let Some(index) = usize::from(number).checked_sub(1) else {
            return Some(None);
        };
        let named = |name: &&Name| priority.is_some_and(|priority| ***name == **priority);
        let name = self.names.iter().find(named).or(self.names.get(index))?;
        Some(Some(name.clone()))
    }

    /// Where a copy of a topic's message goes: the lane it names where there is one.
    pub(crate) fn lane_of_topic(&self, priority: Option<&Text>) -> LaneName {
        let priority = priority?;
        self.names
            .iter()
            .find(|name| ***name == **priority)
            .cloned()
    }

    /// Adds a message to a lane; `false` where there is no such lane.
    pub(crate) fn add(
        &mut self,
        lane: &LaneName,
        entry: Entry,
        now: Duration,
        delay: Duration,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(lane) else {
            return false;
        };
        self.stored += 1;
        lane.add(entry, now, now.saturating_add(delay), wakers);
        true
    }

    /// Ends every lock as a fault would and tells the sources; nothing else changes.
    pub(crate) fn lose_locks(&mut self, wakers: &mut Vec<Waker>) {
        for lane in self.lanes.values_mut() {
            let scopes: Vec<u64> = lane.consumers.keys().copied().collect();
            for scope in scopes {
                let lost = lane.abandon(scope, wakers);
                lane.report(scope, lost, wakers);
            }
        }
    }

    /// Ends every source of one transport.
    pub(crate) fn end(&mut self, client: u64, wakers: &mut Vec<Waker>) {
        for lane in self.lanes.values_mut() {
            let of_client = lane.consumers.iter().filter(|(_, c)| c.client == client);
            let scopes: Vec<u64> = of_client.map(|(scope, _)| *scope).collect();
            if scopes.is_empty() {
                continue;
            }
            for scope in scopes {
                let lost: Vec<Receipt> = lane.abandon(scope, wakers);
                lane.report(scope, lost, wakers);
                lane.consumers.remove(&scope);
            }
            lane.wake(wakers);
        }
    }
}
