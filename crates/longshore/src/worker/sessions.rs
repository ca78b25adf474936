//! The sessions of one driver: whose turn it is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use longshore_core::{Delivery, Receipt, Text, chaos::Flaw};
use tokio::time::Instant;

use super::holding::Holding;

/// A session: its partition and its key.
pub(super) type Key = (u16, Text);

/// A delivery with the partition it came from.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    pub(super) holding: Arc<Holding>,
}

/// Everything that is here of the sessions of one driver, in the order it arrived. Of each session
/// one message at most has its turn, from [`next`](Self::next) until [`free`](Self::free). Only sessions
/// with messages here are known.
#[derive(Default)]
pub(super) struct Sessions {
    by_key: BTreeMap<Key, Session>,
    /// Sessions that may have a turn, and were ready when they were put here.
    ready: VecDeque<Key>,
    /// The same, whose message may run beside no other such.
    apart: VecDeque<Key>,
    /// Sessions that wait for another attempt.
    waits: BTreeMap<(Instant, u64), Key>,
    /// Which session's turn a delivery has.
    turns: BTreeMap<Receipt, Key>,
    waited: u64,
}

struct Session {
    turn: Turn,
    line: VecDeque<Held>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ready,
    /// Under this number.
    Waiting(u64),
    Taken,
}

impl Sessions {
    /// At the end of the line of its session.
    pub(super) fn arrive(&mut self, mut key: Text, held: Held) {
        if Flaw::KeysInParallel.on() {
            key = held.delivery.envelope.id.clone();
        }
        let key = (held.holding.index, key);
        if let Some(session) = self.by_key.get_mut(&key) {
            session.line.push_back(held);
            return;
        }
        let line = VecDeque::from([held]);
        let turn = Turn::Ready;
        self.by_key.insert(key.clone(), Session { turn, line });
        self.make_ready(key);
    }

    /// The next message whose turn it is.
    pub(super) fn next(&mut self) -> Option<Held> {
        self.take(false)
    }

    /// The next message that may run beside no other such.
    pub(super) fn next_apart(&mut self) -> Option<Held> {
        self.take(true)
    }

    fn take(&mut self, alone: bool) -> Option<Held> {
        loop {
            let key = match alone {
                false => self.ready.pop_front()?,
                true => self.apart.pop_front()?,
            };
            let Some(session) = self.by_key.get_mut(&key) else {
                continue;
            };
            // It may have become another's turn since it was put there.
            let fits = |held: &Held| held.delivery.alone == alone;
            if session.turn != Turn::Ready || !session.line.front().is_some_and(fits) {
                continue;
            }
            let held = session.line.pop_front()?;
            session.turn = Turn::Taken;
            self.turns.insert(held.delivery.receipt, key);
            return Some(held);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn has_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// A message that had its turn has it again at that time; its session waits.
    pub(super) fn put_back(&mut self, held: Held, at: Instant) {
        let Some(key) = self.turns.remove(&held.delivery.receipt) else {
            return;
        };
        self.waited += 1;
        let Some(session) = self.by_key.get_mut(&key) else {
            return;
        };
        match Flaw::RequeueAtTail.on() {
            false => session.line.push_front(held),
            true => session.line.push_back(held),
        }
        session.turn = Turn::Waiting(self.waited);
        self.waits.insert((at, self.waited), key);
    }

    /// When the first of those that wait has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits.keys().next().map(|(at, _)| *at)
    }

    /// Those that have waited long enough are ready.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(first) = self.waits.first_entry()
            && first.key().0 <= now
        {
            let ((_, number), key) = first.remove_entry();
            if let Some(session) = self.by_key.get_mut(&key)
                && session.turn == Turn::Waiting(number)
            {
                session.turn = Turn::Ready;
                self.make_ready(key);
            }
        }
    }

    /// The turn of this message is over: the next of its session may have one.
    pub(super) fn free(&mut self, receipt: &Receipt) {
        let Some(key) = self.turns.remove(receipt) else {
            return;
        };
        let Some(session) = self.by_key.get_mut(&key) else {
            return;
        };
        if session.line.is_empty() {
            self.by_key.remove(&key);
        } else {
            session.turn = Turn::Ready;
            self.make_ready(key);
        }
    }

    /// Takes out everything of a partition that has no turn.
    pub(super) fn take_out(&mut self, holding: &Arc<Holding>) -> Vec<Held> {
        self.take_where(holding.index, |held| Arc::ptr_eq(&held.holding, holding))
    }

    /// Takes out what has no turn and whose lock was lost.
    pub(super) fn take_lost(&mut self, partition: u16, lost: &[Receipt]) -> Vec<Held> {
        self.take_where(partition, |held| lost.contains(&held.delivery.receipt))
    }

    fn take_where(&mut self, partition: u16, out: impl Fn(&Held) -> bool) -> Vec<Held> {
        let first = (partition, Text::new());
        let of_partition = self.by_key.range_mut(first..);
        let of_partition = of_partition.take_while(|((index, _), _)| *index == partition);
        let (mut taken, mut changed) = (Vec::new(), Vec::new());
        for (key, session) in of_partition {
            let before = session.line.len();
            for held in std::mem::take(&mut session.line) {
                match out(&held) {
                    true => taken.push(held),
                    false => session.line.push_back(held),
                }
            }
            if session.line.len() < before && session.turn != Turn::Taken {
                changed.push(key.clone());
            }
        }
        for key in changed {
            match self.by_key.get_mut(&key) {
                Some(session) if !session.line.is_empty() => {
                    session.turn = Turn::Ready;
                    self.make_ready(key);
                }
                _ => {
                    self.by_key.remove(&key);
                }
            }
        }
        taken
    }

    fn make_ready(&mut self, key: Key) {
        let session = self.by_key.get(&key);
        let first = session.and_then(|session| session.line.front());
        match first.is_some_and(|held| held.delivery.alone) {
            true => self.apart.push_back(key),
            false => self.ready.push_back(key),
        }
    }
}

#[cfg(test)]
mod tests;
