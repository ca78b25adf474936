//! One queue: its parts and its dead letters.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use longshore_core::{
    Claim, Envelope, ErrorKind, Name, Part, Receipt, Text, Topology, partition_of,
};

use crate::{
    dead_letters::DeadLetters,
    entry::Entry,
    lane::{Lane, LaneName},
    place::Origin,
    sessions::Sessions,
};

/// A logical queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The name by which a store tells its lanes from other queues.
    scope: Text,
    /// In the order they were first declared.
    names: Vec<Name>,
    pub(crate) lanes: BTreeMap<LaneName, Lane>,
    pub(crate) dead: DeadLetters,
    /// It was declared with a dedup window, so copies of a topic's messages take their ids here.
    pub(crate) deduplicates: bool,
    /// By their number; all but one of them are empty.
    pub(crate) sessions: BTreeMap<u16, Sessions>,
    /// The number of partitions declared last, 0 where none were.
    pub(crate) partitions: u16,
    /// Messages in all parts and dead letters together.
    pub(crate) stored: usize,
}

impl Queue {
    /// A queue with the normal lane alone.
    pub(crate) fn new(name: &Name) -> Self {
        Self {
            scope: Topology::new(name.clone()).scope(Part::Lane(0)),
            names: Vec::new(),
            lanes: BTreeMap::from([(None, Lane::default())]),
            dead: DeadLetters::default(),
            sessions: BTreeMap::new(),
            deduplicates: false,
            partitions: 0,
            stored: 0,
        }
    }

    /// Adds a lane where it is missing.
    pub(crate) fn add_lane(&mut self, name: &Name) {
        if !self.names.contains(name) {
            self.names.push(name.clone());
            self.lanes.insert(Some(name.clone()), Lane::default());
        }
    }

    /// Makes it a queue with sessions, of so many partitions.
    pub(crate) fn partition(&mut self, name: &Name, of: u16) {
        self.partitions = of;
        let sessions = self.sessions.entry(of);
        sessions.or_insert_with(|| Sessions::new(name, of));
    }

    /// The part a publisher means. A lane is the one its message names, else the one of that number.
    pub(crate) fn origin(&self, part: Part, priority: Option<&Text>) -> Option<Origin> {
        let number = match part {
            Part::Lane(0) => return Some(Origin::PLAIN),
            Part::Lane(number) => usize::from(number),
            Part::Partition { index, of } => {
                let there = index < of && self.sessions.contains_key(&of);
                return there.then_some(Origin::Partition { index, of });
            }
            _ => return None,
        };
        let named = |name: &&Name| priority.is_some_and(|priority| ***name == **priority);
        let by_name = self.names.iter().find(named);
        let name = by_name.or(self.names.get(number - 1))?;
        Some(Origin::Lane(Some(name.clone())))
    }

    /// Where a copy of a topic's message goes: the partition of its key, or the lane it names where
    /// there is one.
    pub(crate) fn origin_of_copy(&self, envelope: &Envelope) -> Origin {
        if let Some(origin) = self.origin_of_key(envelope) {
            return origin;
        }
        let named = envelope.priority.as_ref().and_then(|priority| {
            let mut names = self.names.iter();
            names.find(|name| ***name == **priority).cloned()
        });
        Origin::Lane(named)
    }

    fn origin_of_key(&self, envelope: &Envelope) -> Option<Origin> {
        let (of, key) = (self.partitions, envelope.key.as_ref()?);
        (of > 0).then(|| Origin::Partition {
            index: partition_of(key, of),
            of,
        })
    }

    /// The name by which a store tells a part that is there from others.
    pub(crate) fn scope(&self, origin: &Origin) -> &Text {
        let partition = match origin {
            Origin::Lane(_) => None,
            Origin::Partition { index, of } => self.sessions.get(of).and_then(|sessions| {
                let partition = sessions.partitions.get(usize::from(*index))?;
                Some(&partition.scope)
            }),
        };
        partition.unwrap_or(&self.scope)
    }

    /// Adds a message to a part that is there.
    pub(crate) fn add(
        &mut self,
        to: &Origin,
        entry: Entry,
        now: Duration,
        delay: Duration,
        wakers: &mut Vec<Waker>,
    ) {
        let due = now.saturating_add(delay);
        match to {
            Origin::Lane(lane) => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    self.stored += 1;
                    lane.add(entry, now, due, wakers);
                }
            }
            Origin::Partition { index, of } => {
                let sessions = self.sessions.get_mut(of);
                if let Some(partition) = sessions.and_then(|s| s.partition(*index)) {
                    self.stored += 1;
                    partition.add(entry, now, due, wakers);
                }
            }
        }
    }

    /// Adds a message where it came from. Where the queue has another number of partitions by now, that
    /// is the one of its key.
    pub(crate) fn put_again(
        &mut self,
        from: &Origin,
        entry: Entry,
        now: Duration,
        wakers: &mut Vec<Waker>,
    ) {
        let moved = match from {
            Origin::Partition { of, .. } if *of != self.partitions => {
                self.origin_of_key(&entry.envelope)
            }
            _ => None,
        };
        // It was counted among the dead letters.
        self.stored = self.stored.saturating_sub(1);
        let to = moved.as_ref().unwrap_or(from);
        self.add(to, entry, now, Duration::ZERO, wakers);
    }

    /// Takes a claim from whoever has it; `false` where nobody has.
    pub(crate) fn lose_claim(&mut self, of: u16, claim: Claim, wakers: &mut Vec<Waker>) -> bool {
        let sessions = self.sessions.get_mut(&of);
        let lost = sessions.is_some_and(|sessions| sessions.claims.lose(claim, wakers));
        if lost {
            self.stop_reading(of, claim, wakers);
        }
        lost
    }

    /// Takes everything from one worker, or from all.
    pub(crate) fn lose_claims(&mut self, of: u16, by: Option<u64>, wakers: &mut Vec<Waker>) {
        let sessions = self.sessions.get(&of);
        for claim in sessions.map_or_else(Vec::new, |s| s.claims.owned(by)) {
            self.lose_claim(of, claim, wakers);
        }
    }

    /// Ends the source that reads under a claim.
    pub(crate) fn stop_reading(&mut self, of: u16, claim: Claim, wakers: &mut Vec<Waker>) {
        match claim {
            Claim::Partition(index) => {
                let sessions = self.sessions.get_mut(&of);
                if let Some(partition) = sessions.and_then(|s| s.partition(index)) {
                    partition.lose(ErrorKind::Stale, wakers);
                }
            }
            Claim::Forwarder => {
                if let Some(plain) = self.lanes.get_mut(&None) {
                    plain.end_forwarding(wakers);
                }
            }
            Claim::Seat(_) => {}
        }
    }

    /// Ends every lock and every ownership as a fault would and tells the sources and memberships;
    /// nothing else changes.
    pub(crate) fn lose_locks(&mut self, wakers: &mut Vec<Waker>) {
        for of in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.lose_claims(of, None, wakers);
        }
        for lane in self.lanes.values_mut() {
            let scopes: Vec<u64> = lane.consumers.keys().copied().collect();
            for scope in scopes {
                let lost = lane.abandon(scope, wakers);
                lane.report(scope, lost, wakers);
            }
        }
    }

    /// Ends every membership and every source of one transport.
    pub(crate) fn end(&mut self, client: u64, wakers: &mut Vec<Waker>) {
        for of in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(sessions) = self.sessions.get_mut(&of) else {
                continue;
            };
            for partition in &mut sessions.partitions {
                partition.end(client, wakers);
            }
            for member in sessions.claims.close(client) {
                self.lose_claims(of, Some(member), wakers);
            }
        }
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
