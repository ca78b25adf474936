//! Who owns which partition of a queue with sessions.

use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::Result;

/// What one worker at a time can own of a queue with sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// One partition, by its index.
    Partition(u16),
    /// One of the places for workers that own a partition more than others. Nothing is consumed by it.
    Seat(u16),
    /// The plain queue, into which plain clients may publish with a key.
    Forwarder,
}

/// A claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// What is owned.
    pub claim: Claim,
    /// The fencing token: larger than every earlier one of the same partition, over all processes.
    /// 0 for a seat.
    pub token: u64,
}

/// This process among the live workers of a queue. Who owns how much is the framework's business;
/// that no two own the same is the transport's. Dropping it leaves, and gives up what is owned as
/// the death of the process would.
#[async_trait]
pub trait Membership: Send + Sync {
    /// How many workers are alive, this one included. Follows a death as fast as the broker
    /// notices it.
    async fn live(&self) -> Result<usize>;

    /// Partitions that nobody owns, as far as can be seen; asked at most once a second.
    async fn free(&self) -> Result<Vec<u16>>;

    /// Takes a claim; `None`: somebody else has it. The ownership is exclusive from then on, until
    /// it is released or lost.
    async fn acquire(&self, claim: Claim) -> Result<Option<Ownership>>;

    /// Gives a claim back, once everything started under it is settled and its source is dropped.
    /// What was not started comes back to the next owner in order, at no cost to its attempts.
    async fn release(&self, ownership: Ownership) -> Result<()>;

    /// An ownership that was lost, each once. Its deliveries must not be settled any more, and may
    /// run elsewhere.
    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Ownership>;
}

const _: fn(&dyn Membership) = |_| ();
