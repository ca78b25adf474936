//! How many partitions one worker may own. Pure: no clock, no I/O.

/// What one worker sees of a queue with sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    /// Partitions of the queue.
    pub(super) partitions: usize,
    /// Live workers, this one included.
    pub(super) live: usize,
    /// Partitions owned here that are not being given up.
    pub(super) owned: usize,
    /// The place this worker has among those that own one more.
    pub(super) seat: Option<u16>,
    /// No seat was to be had since the last look.
    pub(super) seats_taken: bool,
    /// Partitions that nobody owns.
    pub(super) free: usize,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Take this many of the free partitions.
    Acquire(usize),
    /// Take one of this many seats.
    Sit(u16),
    /// Give the seat back.
    Stand,
    /// Give this many partitions up, those with the least to do.
    GiveUp(usize),
    /// All is as it should be, as far as this worker can mend it.
    Rest,
}

/// Everybody may own ⌊partitions ÷ live⌋, and one more with one of the seats, of which there are as
/// many as partitions left over. Nobody has to be asked: whoever is below its share takes what is
/// free, whoever is above it gives up, and the seats say who has the rest.
pub(super) fn next(view: View) -> Move {
    let live = view.live.max(1);
    let floor = view.partitions / live;
    let seats = view.partitions % live;
    if view.seat.is_some_and(|seat| usize::from(seat) >= seats) {
        return Move::Stand;
    }
    let quota = floor + usize::from(view.seat.is_some());
    let may_sit = view.seat.is_none() && seats > 0 && !view.seats_taken;
    let sit = Move::Sit(u16::try_from(seats).unwrap_or(u16::MAX));
    match view.owned {
        owned if owned < quota && view.free > 0 => Move::Acquire(view.free.min(quota - owned)),
        // Rather keep what is here than let it move.
        owned if owned == quota + 1 && may_sit => sit,
        owned if owned > quota => Move::GiveUp(owned - quota - usize::from(may_sit)),
        owned if owned == quota && may_sit && view.free > 0 => sit,
        _ => Move::Rest,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const VIEW: View = View {
        partitions: 16,
        live: 3,
        owned: 5,
        seat: None,
        seats_taken: false,
        free: 0,
    };

    #[test]
    fn a_worker_takes_its_share_and_no_more() {
        let with = |change: fn(&mut View)| {
            let mut view = VIEW;
            change(&mut view);
            next(view)
        };
        assert_eq!(with(|_| {}), Move::Rest);
        assert_eq!(with(|v| (v.owned, v.free) = (0, 16)), Move::Acquire(5));
        assert_eq!(with(|v| (v.owned, v.free) = (3, 1)), Move::Acquire(1));
        assert_eq!(with(|v| v.free = 1), Move::Sit(1));
        assert_eq!(with(|v| (v.free, v.seats_taken) = (1, true)), Move::Rest);
        assert_eq!(with(|v| (v.free, v.seat) = (1, Some(0))), Move::Acquire(1));
        assert_eq!(with(|v| v.owned = 6), Move::Sit(1));
        assert_eq!(
            with(|v| (v.owned, v.seats_taken) = (6, true)),
            Move::GiveUp(1)
        );
        assert_eq!(with(|v| (v.owned, v.seat) = (6, Some(0))), Move::Rest);
        assert_eq!(with(|v| v.owned = 16), Move::GiveUp(10));
        assert_eq!(with(|v| (v.owned, v.live) = (16, 2)), Move::GiveUp(8));
        assert_eq!(with(|v| v.seat = Some(1)), Move::Stand);
        assert_eq!(with(|v| (v.live, v.owned) = (20, 0)), Move::Rest);
        assert_eq!(
            with(|v| (v.live, v.owned, v.free) = (20, 0, 3)),
            Move::Sit(16)
        );
        assert_eq!(with(|v| (v.live, v.owned) = (0, 16)), Move::Rest);
    }

    /// Workers of one queue, with nothing but the exclusive claims between them.
    struct Workers {
        partitions: usize,
        owner: Vec<Option<usize>>,
        seats: Vec<Option<usize>>,
        live: BTreeSet<usize>,
    }

    impl Workers {
        fn new(partitions: usize) -> Self {
            Self {
                partitions,
                owner: vec![None; partitions],
                seats: vec![None; partitions],
                live: BTreeSet::new(),
            }
        }

        fn owned(&self, worker: usize) -> usize {
            self.owner.iter().filter(|o| **o == Some(worker)).count()
        }

        /// One look of one worker, and all it leads to.
        fn look(&mut self, worker: usize) {
            let mut seats_taken = false;
            for _ in 0..8 {
                let seat = self.seats.iter().position(|s| *s == Some(worker));
                let view = View {
                    partitions: self.partitions,
                    live: self.live.len(),
                    owned: self.owned(worker),
                    seat: seat.map(|seat| seat as u16),
                    seats_taken,
                    free: self.owner.iter().filter(|o| o.is_none()).count(),
                };
                match next(view) {
                    Move::Acquire(n) => {
                        let free = self.owner.iter_mut().filter(|o| o.is_none());
                        free.take(n).for_each(|o| *o = Some(worker));
                    }
                    Move::GiveUp(n) => {
                        let mine = self.owner.iter_mut().filter(|o| **o == Some(worker));
                        mine.take(n).for_each(|o| *o = None);
                    }
                    Move::Sit(seats) => {
                        let mut seats = self.seats.iter_mut().take(usize::from(seats));
                        match seats.find(|s| s.is_none()) {
                            Some(seat) => *seat = Some(worker),
                            None => seats_taken = true,
                        }
                    }
                    Move::Stand => self.seats[seat.expect("a seat")] = None,
                    Move::Rest => return,
                }
            }
        }

        fn die(&mut self, worker: usize) {
            self.live.remove(&worker);
            for claim in self.owner.iter_mut().chain(&mut self.seats) {
                claim.take_if(|owner| *owner == worker);
            }
        }

        fn assert_even(&self, after: &str) {
            let counts: Vec<_> = self.live.iter().map(|w| self.owned(*w)).collect();
            assert_eq!(counts.iter().sum::<usize>(), self.partitions, "{after}");
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(
                most.zip(least).is_none_or(|(m, l)| m - l <= 1),
                "{after}: {counts:?}"
            );
        }
    }

    #[test]
    fn the_spread_is_even_a_few_looks_after_any_change() {
        for partitions in [1, 2, 16, 64, 256] {
            let mut workers = Workers::new(partitions);
            let mut random = 1_u64;
            for step in 0..200 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                let worker = (random >> 33) as usize % 24;
                match workers.live.contains(&worker) {
                    true if workers.live.len() > 1 => workers.die(worker),
                    _ => {
                        workers.live.insert(worker);
                    }
                }
                for round in 0..6 {
                    // Not always in the same order.
                    let mut order: Vec<usize> = workers.live.iter().copied().collect();
                    let at = (random as usize + round) % order.len();
                    order.rotate_left(at);
                    order.into_iter().for_each(|worker| workers.look(worker));
                }
                let live = workers.live.len();
                workers.assert_even(&format!("{partitions} over {live}, step {step}"));
                let before = workers.owner.clone();
                workers
                    .live
                    .clone()
                    .into_iter()
                    .for_each(|w| workers.look(w));
                assert_eq!(before, workers.owner, "at rest nothing moves");
            }
        }
    }
}
