//! The way into the quarantine of a queue, and out of it.
//!
//! One lane of a client consumes it for all: two would have two suspects in one process. Nothing comes out
//! while others are on their way in.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::task::AtomicWaker;
use longshore_core::Name;
use tokio::sync::OwnedMutexGuard;

/// One of each queue, for all lanes this client consumes. Shut while suspects are being moved: whatever
/// kills this process out of the quarantine would leave two of each that is half moved.
#[derive(Default)]
pub(crate) struct Gate {
    turn: Arc<tokio::sync::Mutex<()>>,
    under_way: AtomicUsize,
    waiting: Mutex<Vec<Weak<AtomicWaker>>>,
}

/// A suspect is on its way to the quarantine as long as this lives.
pub(crate) struct UnderWay(Arc<Gate>);

/// The right to consume the quarantine.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Gate {
    /// The right to consume, once it is free. Cancelling loses only the place in the line.
    pub(crate) async fn turn(&self) -> Turn {
        self.turn.clone().lock_owned().await
    }

    pub(crate) fn pass(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.clone())
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Wakes whoever is registered there, as long as that lives, whenever the gate may have opened.
    pub(crate) fn wakes(&self, waker: &Arc<AtomicWaker>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waker| waker.strong_count() > 0);
        waiting.push(Arc::downgrade(waker));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let gate = &self.0;
        gate.under_way.fetch_sub(1, Ordering::AcqRel);
        let waiting = gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in waiting.iter().filter_map(Weak::upgrade) {
            waker.wake();
        }
    }
}

/// The gates of a client.
#[derive(Default)]
pub(crate) struct Gates(Mutex<BTreeMap<Name, Weak<Gate>>>);

impl Gates {
    pub(crate) fn of(&self, queue: &Name) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(queue).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        gates.insert(queue.clone(), Arc::downgrade(&gate));
        gate
    }
}
