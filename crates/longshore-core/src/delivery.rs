//! An envelope handed to this process under a lock.

use crate::{Envelope, Part, Reason};

/// Names one lock; a delivery is settled by it. Plain data, made and read by its transport alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt {
    /// The connection epoch, subscription or ownership the lock belongs to.
    pub scope: u64,
    /// Which lock inside that scope.
    pub tag: [u64; 2],
}

/// An envelope handed to this process under a lock, with its attempt number.
#[derive(Debug)]
pub struct Delivery {
    /// What travelled.
    pub envelope: Envelope,
    /// The lock.
    pub receipt: Receipt,
    /// Where it was read from.
    pub part: Part,
    /// The number a start of the handler would have now: 1 for the first, counted over all
    /// processes and restarts.
    pub attempt: u32,
    /// An earlier start may have killed its process, so the broker must note the next one before
    /// it happens: wait for [`Settler::start`](crate::Settler::start).
    pub suspect: bool,
    /// It came back unexplained so often that no other such message of this worker may run beside
    /// it. Only partitions say so; lanes keep such messages apart themselves.
    pub alone: bool,
    /// How its id stands to the dedup window.
    pub standing: Standing,
    /// Why no handler may see it. The framework dead-letters it with this reason.
    pub defect: Option<Box<Defect>>,
}

/// How the id of a delivery stands to the dedup window of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nobody has asked: the store must, before it starts.
    #[default]
    Unknown,
    /// This copy has held the id since it was published, so no other can run.
    Held,
    /// It was redriven, or has an id only because a copy of it needed one: it runs whatever the
    /// window says.
    Exempt,
}

/// Why a transport judged a delivery unfit for any handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// The dead-letter reason.
    pub reason: Reason,
    /// What exactly is wrong, without contents of the message.
    pub detail: String,
}

impl Defect {
    /// A defect of this reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// A body of `size` bytes where `limit` are allowed.
    pub fn too_large(size: u64, limit: usize) -> Self {
        Self::new(
            Reason::TooLarge,
            format!("the body has {size} bytes, the limit is {limit}"),
        )
    }
}
