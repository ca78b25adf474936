//! Where dedup marks and session state live.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Result, Text};

/// The name of a message in a dedup window: its id, together with its key where it has one.
pub fn mark_name(key: Option<&str>, id: &str) -> Text {
    match key {
        None => id.into(),
        // The length keeps every pair apart from every other, and from an id alone: those are
        // at most 128 bytes and hold no control characters.
        Some(key) => format!("{}\u{1f}{key}{id}", key.len()).into(),
    }
}

/// Asks for an id before its message starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Made by [`mark_name`].
    pub name: Text,
    /// Who asks: drawn anew for every start.
    pub owner: Text,
    /// The number the start has. A mark that waits for the next attempt of its holder is given to
    /// a delivery with at least that number.
    pub attempt: u32,
    /// How long it is held without renewal.
    pub lease: Duration,
    /// Only one copy at a time can be here anyway (a session): a running mark is taken over.
    pub sole: bool,
}

/// What a store knows of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It is the asker's now, for the length of the lease.
    Taken,
    /// Another copy has it: running, waiting for its next attempt, or waiting since its publish.
    Held {
        /// When the hold ends if nobody renews it.
        at_most: Duration,
    },
    /// A copy was completed inside the window.
    Done {
        /// What it answered, where it was a request.
        reply: Option<Bytes>,
    },
}

/// What becomes of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkWrite {
    /// Made by [`mark_name`].
    pub name: Text,
    /// Whose mark it is: the owner it was taken for, or empty where it is held since its publish.
    /// Any mark can become done; waiting and released only one's own.
    pub owner: Text,
    /// What to write.
    pub change: MarkChange,
}

/// The change of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkChange {
    /// Completed: remembered for the window.
    Done {
        /// How long from now.
        window: Duration,
        /// What it answered, where it was a request.
        reply: Option<Bytes>,
    },
    /// Waits for its next attempt; other copies wait as well.
    Waiting {
        /// The number of that attempt.
        attempt: u32,
        /// Until when others wait at most.
        at_most: Duration,
    },
    /// Forgotten: it never started, or became a dead letter.
    Released,
}

/// What a handler wrote to the state of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The session.
    pub key: Text,
    /// The message it was written for. Another try of it sees the state as it was before.
    pub message: Text,
    /// The fencing token of the writer.
    pub token: u64,
    /// The new state, at most 256 KiB; `None` clears it.
    pub value: Option<Bytes>,
}

/// What a store knows of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// Its state, as the asking message may see it.
    pub state: Option<Bytes>,
    /// Set aside whole: its messages become dead letters until it is brought back.
    pub set_aside: bool,
}

/// Dedup marks and session state, by scope ([`Topology::scope`](crate::Topology::scope)).
///
/// Every call may be repeated. An error means that nothing can be said, and whoever asked must wait:
/// a store that is down never lets a duplicate through.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Shared by all processes; otherwise known to this one alone and lost with it.
    fn shared(&self) -> bool;

    /// Asks for ids. One answer each, in order. A take by the same owner again is granted.
    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>>;

    /// Lets leases last this much longer from now. `false`: it is no longer this owner's.
    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: Duration,
    ) -> Result<Vec<bool>>;

    /// Changes marks, all of them; what is somebody else's is left alone.
    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()>;

    /// A partition was granted with this token: smaller ones can write no more.
    async fn grant(&self, scope: &Text, token: u64) -> Result<()>;

    /// The session as this message may see it: a message whose own write is the last sees what was
    /// before it, any other sees what is there.
    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session>;

    /// Writes the state of a session. The last write, the message it was for and what was before it
    /// are kept; a repeated write for the same message replaces only the former.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`](crate::ErrorKind::Stale) where a larger token has been granted.
    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()>;

    /// Sets a session aside or brings it back. `token` is `None` for an operator, who may always.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`](crate::ErrorKind::Stale) where a larger token has been granted.
    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()>;
}

const _: fn(&dyn Store) = |_| ();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pairs_of_key_and_id_have_one_name() {
        let names = [
            mark_name(None, "ab"),
            mark_name(Some(""), "ab"),
            mark_name(Some("a"), "b"),
            mark_name(Some("ab"), ""),
            mark_name(None, "1ab"),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
