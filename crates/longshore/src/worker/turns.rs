//! Which lane is next.

use longshore_core::{Text, printable};

/// So many starts of all lanes together may pass before a lane that had nothing loses its claim to
/// its share of them. What a source hands over in bursts is made up for, a long absence is not.
const REMEMBERED: f64 = 128.0;

/// Which lane is next: always the most urgent that has something, or by weight.
#[derive(Debug)]
pub(super) enum Turns {
    Strict,
    Weighted(Weighted),
}

/// Stride scheduling: every start moves its lane on by 1 / weight, and the lane that is furthest
/// behind is next (Waldspurger and Weihl, "Stride Scheduling", MIT/LCS/TM-528, 1995).
#[derive(Debug)]
pub(super) struct Weighted {
    lanes: Vec<Lane>,
    /// Places in `lanes`, the one furthest behind first.
    order: Vec<usize>,
    total: f64,
}

#[derive(Debug)]
struct Lane {
    weight: f64,
    passed: f64,
}

impl Turns {
    /// One weight for each lane.
    pub(super) fn weighted(weights: &[u32]) -> Self {
        let lane = |weight: &u32| Lane {
            weight: f64::from(*weight),
            passed: 0.0,
        };
        Self::Weighted(Weighted {
            lanes: weights.iter().map(lane).collect(),
            order: (0..weights.len()).collect(),
            total: weights.iter().copied().map(f64::from).sum(),
        })
    }

    /// The lane to ask after those that had nothing.
    pub(super) fn lane(&self, nth: usize) -> usize {
        match self {
            Self::Strict => nth,
            Self::Weighted(weighted) => weighted.order.get(nth).copied().unwrap_or(nth),
        }
    }

    /// How much of the room a lane may take at once, so that no other waits for all of it.
    pub(super) fn share(&self, lane: usize, room: usize) -> usize {
        let Self::Weighted(weighted) = self else {
            return room;
        };
        let weight = weighted.lanes.get(lane).map_or(0.0, |lane| lane.weight);
        ((room as f64 * weight / weighted.total) as usize).clamp(1, room.max(1))
    }

    /// A lane had its turn.
    pub(super) fn took(&mut self, lane: usize, starts: usize) {
        if let Self::Weighted(weighted) = self {
            weighted.took(lane, starts);
        }
    }
}

impl Weighted {
    fn took(&mut self, lane: usize, starts: usize) {
        let Some(served) = self.lanes.get_mut(lane) else {
            return;
        };
        let now = served.passed;
        served.passed += starts as f64 / served.weight;
        let furthest_behind = now - REMEMBERED / self.total;
        for lane in &mut self.lanes {
            lane.passed = lane.passed.max(furthest_behind);
        }
        let passed = |lane: &usize| self.lanes.get(*lane).map_or(0.0, |lane| lane.passed);
        self.order
            .sort_by(|a, b| passed(a).total_cmp(&passed(b)).then(a.cmp(b)));
    }
}

/// The weight of each of these lanes, checked.
#[track_caller]
pub(super) fn weights<N: AsRef<str>>(
    lanes: &[Text],
    weights: impl IntoIterator<Item = (N, u32)>,
) -> Vec<u32> {
    let mut found: Vec<Option<u32>> = vec![None; lanes.len()];
    for (name, weight) in weights {
        let name = name.as_ref();
        let place = lanes.iter().position(|lane| **lane == *name);
        let place = place.and_then(|lane| found.get_mut(lane));
        let Some(place) = place else {
            let name = printable(name, 64);
            panic!("the queue has no lane \"{name}\"; name it in `Queue::lanes` or leave it out");
        };
        assert!(
            (1..=1_000).contains(&weight),
            "the weight of a lane must lie between 1 and 1000; got {weight} for \"{name}\""
        );
        assert!(
            place.replace(weight).is_none(),
            "the lane \"{name}\" has two weights; give it one"
        );
    }
    let missing = lanes
        .iter()
        .zip(&found)
        .find(|(_, weight)| weight.is_none());
    if let Some((lane, _)) = missing {
        panic!("the lane \"{lane}\" has no weight; give every lane one");
    }
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts so many, of the lanes that have something.
    fn run(turns: &mut Turns, has: impl Fn(usize, usize) -> bool, starts: usize) -> Vec<usize> {
        let mut counts = vec![0; 3];
        let mut started = 0;
        while started < starts {
            let lane = (0..3).map(|nth| turns.lane(nth)).find(|l| has(*l, started));
            let lane = lane.expect("one has something");
            let batch = turns.share(lane, 32);
            turns.took(lane, batch);
            counts[lane] += batch;
            started += batch;
        }
        counts
    }

    fn close_to(counts: &[usize], weights: [usize; 3]) {
        let (all, total): (usize, usize) = (counts.iter().sum(), weights.iter().sum());
        for (count, weight) in counts.iter().zip(weights).filter(|(_, w)| *w > 0) {
            let share = *count as f64 / all as f64;
            let due = weight as f64 / total as f64;
            assert!(
                (share / due - 1.0).abs() < 0.1,
                "{counts:?} for {weights:?}"
            );
        }
    }

    #[test]
    fn backlogged_lanes_share_by_weight_and_an_empty_ones_share_goes_to_the_others() {
        for weights in [[8, 3, 1], [1, 1, 1], [1, 1_000, 1], [100, 10, 1]] {
            let mut turns = Turns::weighted(&weights.map(|w| w as u32));
            close_to(&run(&mut turns, |_, _| true, 100_000), weights);
            let without = run(&mut turns, |lane, _| lane != 0, 100_000);
            assert_eq!(without[0], 0);
            close_to(&without, [0, weights[1], weights[2]]);
        }
    }

    #[test]
    fn a_lane_that_comes_back_has_no_claim_to_what_it_missed() {
        let mut turns = Turns::weighted(&[1, 1, 1]);
        run(&mut turns, |lane, _| lane != 0, 10_000);
        let back = run(&mut turns, |_, _| true, 300);
        assert!(back[0] <= 100 + REMEMBERED as usize, "{back:?}");
        assert!(back[1] > 0 && back[2] > 0, "{back:?}");
    }

    #[test]
    fn what_a_lane_hands_over_in_bursts_is_made_up_for() {
        let mut turns = Turns::weighted(&[8, 3, 1]);
        // The first has nothing in every other span of 64 starts.
        let counts = run(&mut turns, |lane, at| lane != 0 || at % 128 < 100, 100_000);
        close_to(&counts, [8, 3, 1]);
    }
}
