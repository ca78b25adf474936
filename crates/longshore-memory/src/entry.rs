//! A message as the broker keeps it.

use std::time::Duration;

use longshore_core::Envelope;

/// A message with what the broker counts about it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) envelope: Envelope,
    /// Starts noted so far; the next one has this number plus one.
    pub(crate) attempts: u32,
    /// How often its source died with it. From the first time on its starts are noted before they
    /// happen: what waited beside a message that kills its process pays for that once.
    pub(crate) returns: u32,
    /// Came back unexplained too often: delivered alone.
    pub(crate) suspect: bool,
    /// Names this copy where its publish took its id; 0 where it did not.
    pub(crate) copy: u64,
    /// It was redriven and runs whatever its dedup window says.
    pub(crate) exempt: bool,
    /// Its place among those that became ready in the same lane.
    pub(crate) position: u64,
    /// When it became ready, by the broker's clock.
    pub(crate) since: Duration,
}

impl Entry {
    /// A message nobody has seen.
    pub(crate) fn new(envelope: Envelope, since: Duration) -> Self {
        Self {
            envelope,
            attempts: 0,
            returns: 0,
            suspect: false,
            copy: 0,
            exempt: false,
            position: 0,
            since,
        }
    }

    /// Whether a start of it has to be noted before it happens.
    pub(crate) fn is_noted(&self) -> bool {
        self.suspect || self.returns > 0
    }
}
