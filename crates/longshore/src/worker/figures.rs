//! What a worker is doing, in numbers.

use longshore_core::Text;

use super::Shared;

/// What a worker is doing, in numbers, as of one moment. Totals count from its start on; they are those
/// of the metrics in [`telemetry`](crate::telemetry).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Handlers running now.
    pub running: u64,
    /// Each lane by name, the most urgent first, and how many messages of it have been taken up and
    /// are not settled. What waits in its prefetch is not among them. Empty for a queue with sessions.
    pub lanes: Vec<(Text, u64)>,
    /// The partitions this worker owns, by index. Empty for a queue without sessions.
    pub partitions: Vec<OwnedPartition>,
    /// Handlers started.
    pub started: u64,
    /// Messages completed, among them duplicates and those moved into their partition.
    pub completed: u64,
    /// Starts that are followed by another attempt.
    pub retried: u64,
    /// Messages set aside.
    pub dead_lettered: u64,
    /// Messages handed back unstarted.
    pub released: u64,
    /// Messages completed without a start inside the dedup window.
    pub duplicates: u64,
    /// Locks lost while the message was here.
    pub locks_lost: u64,
    /// Settlements that came too late.
    pub stale: u64,
}

/// A partition a worker owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedPartition {
    /// Its index, from 0.
    pub index: u16,
    /// The fencing token of the ownership.
    pub token: u64,
    /// Messages of it that are here and not settled, whether running or waiting.
    pub unsettled: u64,
}

impl Figures {
    pub(super) fn of(shared: &Shared) -> Self {
        let work = &shared.work;
        let taken = shared.intake.unsettled();
        let lanes = shared.lanes.iter().cloned().zip(taken);
        let partition = |holding: &super::holding::Holding| {
            Some(OwnedPartition {
                index: holding.index,
                token: holding.desk.tenure.as_ref()?.token,
                unsettled: holding.desk.unsettled() as u64,
            })
        };
        Self {
            running: work.running.level(),
            lanes: lanes.map(|(lane, taken)| (lane, taken as u64)).collect(),
            partitions: shared.holdings.map(partition),
            started: work.started.total(),
            completed: work.completed.total(),
            retried: work.retried.total(),
            dead_lettered: work.dead_lettered.total(),
            released: work.released.total(),
            duplicates: work.duplicates.total(),
            locks_lost: work.locks_lost.total(),
            stale: work.stale.total(),
        }
    }
}
