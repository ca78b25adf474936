//! The one source of randomness and of message ids.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use crate::{Envelope, Text};

/// Where ids and every other random number come from, so that a simulation can hold them.
pub trait Ids: fmt::Debug + Send + Sync + 'static {
    /// 128 bits that nobody outside the process can predict and nobody has had before.
    fn next(&self) -> u128;

    /// [`next`](Self::next) as 32 hexadecimal characters: a message or correlation id.
    fn text(&self) -> Text {
        format!("{:032x}", self.next()).into()
    }
}

/// Ids from the process's cryptographic generator, seeded by the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn next(&self) -> u128 {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// The same ids for the same seed, for tests and simulations. Predictable: never for production.
pub struct SeededIds {
    seed: u64,
    drawn: AtomicU64,
    generator: Mutex<StdRng>,
}

impl SeededIds {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
            generator: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }
}

impl fmt::Debug for SeededIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededIds")
            .field("seed", &self.seed)
            .field("drawn", &self.drawn)
            .finish()
    }
}

impl Ids for SeededIds {
    fn next(&self) -> u128 {
        let mut bytes = [0; 16];
        self.drawn.fetch_add(1, Ordering::Relaxed);
        self.generator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// The id of the `index`-th message a handler publishes: the same for every try of its parent, so
/// that a dedup window downstream makes the pipeline effectively once.
pub fn derived_id(parent: &str, index: u32) -> Text {
    let mut hash = Sha256::new();
    hash.update(b"longshore-derived\0");
    hash.update((parent.len() as u64).to_be_bytes());
    hash.update(parent);
    hash.update(index.to_be_bytes());
    hexadecimal(hash)
}

/// The id of a message that came without one: a hash of its type, key and body. Two equal messages
/// have the same, so it names a message but proves nothing about being the first.
pub fn content_id(envelope: &Envelope) -> Text {
    let mut hash = Sha256::new();
    hash.update(b"longshore-content\0");
    for part in [
        envelope.kind.as_bytes(),
        envelope.key.as_deref().unwrap_or_default().as_bytes(),
        &envelope.body,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hexadecimal(hash)
}

fn hexadecimal(hash: Sha256) -> Text {
    let digest = hash.finalize();
    let (half, _) = digest.split_at(16);
    let mut text = String::with_capacity(32);
    for byte in half {
        use fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_for_the_same_parent_and_differ_otherwise() {
        assert_eq!(derived_id("a", 0), derived_id("a", 0));
        let ids = [derived_id("a", 0), derived_id("a", 1), derived_id("b", 0)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert!(ids.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b, c) = (SeededIds::new(7), SeededIds::new(7), SeededIds::new(8));
        let first: Vec<u128> = (0..4).map(|_| a.next()).collect();
        assert_eq!(first, (0..4).map(|_| b.next()).collect::<Vec<_>>());
        assert_ne!(first, (0..4).map(|_| c.next()).collect::<Vec<_>>());
    }
}
