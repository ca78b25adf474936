//! What the broker sent back as unroutable, in the order of the wire.
//!
//! lapin hands a returned message to whichever confirm it completes next, which is the wrong one as
//! soon as two publishes are in flight, and logs it whole. The guard takes returns off the stream
//! instead and notes them here before the confirm that follows can be read.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Names one publish in flight. The publisher has at most one of each at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) channel: u16,
    pub(crate) message_id: Box<[u8]>,
    pub(crate) routing_key: Box<[u8]>,
}

/// Returns not yet asked for. Bounded by the publishes in flight: each confirm takes its own.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    held: AtomicUsize,
    codes: Mutex<BTreeMap<Key, u16>>,
}

impl Returns {
    pub(super) fn note(&self, key: Key, code: u16) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.insert(key, code);
        self.held.store(codes.len(), Ordering::Release);
    }

    /// The reply code this publish came back with, once.
    pub(crate) fn take(&self, key: &Key) -> Option<u16> {
        // The note happened before the confirm was forwarded, so whoever saw the confirm sees it.
        if self.held.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let code = codes.remove(key);
        self.held.store(codes.len(), Ordering::Release);
        code
    }

    /// Drops what is left of a channel that is used anew.
    pub(crate) fn forget(&self, channel: u16) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|key, _| key.channel != channel);
        self.held.store(codes.len(), Ordering::Release);
    }
}
