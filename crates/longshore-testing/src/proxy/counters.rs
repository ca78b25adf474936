//! What a proxy has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use super::flow::Direction;
use super::trap::{Harm, Unit};

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
    /// AMQP methods that a [`Trap`](super::Trap) has left out, their connections reset or not.
    pub lost_methods: u64,
    /// Redis replies that a [`Trap`](super::Trap) has left out.
    pub lost_replies: u64,
    /// Bytes that arrived inverted.
    pub damaged: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    upstream_failed: AtomicU64,
    lost_methods: AtomicU64,
    lost_replies: AtomicU64,
    damaged: AtomicU64,
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

    /// Counts what a trap has caught.
    pub(super) fn caught(&self, unit: Unit, harm: Harm) {
        match (harm, unit) {
            (Harm::Damage, _) => return self.damaged(),
            (_, Unit::Method(_)) => &self.lost_methods,
            (_, Unit::Reply) => &self.lost_replies,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
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
            lost_methods: self.lost_methods.load(Ordering::Relaxed),
            lost_replies: self.lost_replies.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }
}
