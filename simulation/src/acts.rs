//! What is done to workers and queues.

use std::time::Duration;

use crate::random::Random;

/// Something done to a worker, which is named by its place among those alive, or to the queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// One more worker.
    Join,
    /// A worker stops as it should.
    Leave(u64),
    /// A worker is killed.
    Die(u64),
    /// A worker is paused for so long.
    Pause(u64, Duration),
    /// A worker runs so many handlers from now on.
    Concurrency(u64, usize),
    /// A worker reads ahead so far from now on.
    Prefetch(u64, u16),
    /// A worker loses its connection for so long, and hears of it after so long.
    Disconnect(u64, Duration, Duration),
    /// A worker loses a partition, and hears of it after so long.
    LoseOwnership(u64, Duration),
    /// A worker loses a lock.
    LoseLock(u64),
    /// The broker forgets every lock and ownership.
    LoseAll,
    /// An operator sends some dead letters back.
    Redrive,
    /// An operator brings sessions back that were set aside.
    BringBack,
    /// Somebody writes session states under tokens that are no longer in force.
    Forge,
}

/// What happens when, in order.
pub(crate) fn draw(draw: &mut Random, load: Duration, calm: bool) -> Vec<(Duration, Act)> {
    let most = load.as_millis() as u64;
    let mut acts = Vec::new();
    for _ in 0..draw.within(0, 12) {
        let worker = draw.below(8);
        let act = match draw.below(if calm { 40 } else { 100 }) {
            0..8 => Act::Join,
            8..15 => Act::Leave(worker),
            15..19 => Act::Pause(worker, draw.millis(10, 4_000)),
            19..23 => Act::Concurrency(worker, draw.within(1, 10) as usize),
            23..27 => Act::Prefetch(worker, draw.within(1, 20) as u16),
            27..34 => Act::Redrive,
            34..37 => Act::BringBack,
            37..40 => Act::Forge,
            40..55 => Act::Die(worker),
            55..70 => Act::Disconnect(worker, draw.millis(10, 5_000), draw.millis(0, 4_000)),
            70..82 => Act::LoseOwnership(worker, draw.millis(0, 4_000)),
            82..94 => Act::LoseLock(worker),
            _ => Act::LoseAll,
        };
        acts.push((draw.millis(0, most), act));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}
