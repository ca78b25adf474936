//! What a proxy has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use super::flow::Direction;

/// A snapshot of a proxy's counts since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Accepted connections that were reset at once because the upstream could not be reached.
    pub upstream_failed: u64,
    /// Connections open now.
    pub live: usize,
    /// Bytes handed to the server.
    pub bytes_to_server: u64,
    /// Bytes handed to the client.
    pub bytes_to_client: u64,
    /// Bytes of clients that were thrown away.
    pub discarded_to_server: u64,
    /// Bytes of the server that were thrown away.
    pub discarded_to_client: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    upstream_failed: AtomicU64,
    forwarded: [AtomicU64; 2],
    discarded: [AtomicU64; 2],
}

impl Tally {
    /// Counts a connection and returns its number, unique for the proxy.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn upstream_failed(&self) {
        self.upstream_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn forwarded(&self, direction: Direction, bytes: usize) {
        self.forwarded[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn discarded(&self, direction: Direction, bytes: usize) {
        self.discarded[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self, live: usize) -> Counters {
        let of = |counts: &[AtomicU64; 2], direction: Direction| {
            counts[direction as usize].load(Ordering::Relaxed)
        };
        Counters {
            accepted: self.accepted.load(Ordering::Relaxed),
            upstream_failed: self.upstream_failed.load(Ordering::Relaxed),
            live,
            bytes_to_server: of(&self.forwarded, Direction::ToServer),
            bytes_to_client: of(&self.forwarded, Direction::ToClient),
            discarded_to_server: of(&self.discarded, Direction::ToServer),
            discarded_to_client: of(&self.discarded, Direction::ToClient),
        }
    }
}
