//! Cancelling a consumer without losing the deliveries that cross the answer.
//!
//! RabbitMQ answers `basic.cancel` before it sends what the queue had handed to the channel by then,
//! and lapin throws away what arrives for a consumer whose cancellation was answered: such a delivery
//! would stay unsettled until its channel closes, and then count as a return. So the guard keeps the
//! answer back until one more question on the same channel has been answered; everything the queue
//! had sent comes before that.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Cancellations under way on one connection.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    channels: Mutex<BTreeMap<u16, Cancel>>,
    kept: Notify,
}

#[derive(Debug)]
enum Cancel {
    Wanted,
    Kept(Vec<u8>),
}

impl Cancels {
    /// The next `cancel-ok` on this channel is kept back until the `qos-ok` after it.
    pub(crate) fn expect(&self, channel: u16) {
        self.lock().insert(channel, Cancel::Wanted);
    }

    /// Waits until the answer has arrived and is kept.
    pub(crate) async fn kept(&self, channel: u16) {
        loop {
            let mut notified = std::pin::pin!(self.kept.notified());
            notified.as_mut().enable();
            if !matches!(self.lock().get(&channel), Some(Cancel::Wanted)) {
                return;
            }
            notified.await;
        }
    }

    /// The guard has read a `cancel-ok`. Whether it does not pass now.
    pub(super) fn keep(&self, channel: u16, frame: Vec<u8>) -> bool {
        let mut channels = self.lock();
        let Some(cancel @ Cancel::Wanted) = channels.get_mut(&channel) else {
            return false;
        };
        *cancel = Cancel::Kept(frame);
        drop(channels);
        self.kept.notify_waiters();
        true
    }

    /// The guard has read a `qos-ok`. What passes before it.
    pub(super) fn release(&self, channel: u16) -> Vec<u8> {
        match self.lock().remove(&channel) {
            Some(Cancel::Kept(frame)) => frame,
            Some(Cancel::Wanted) | None => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Cancel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
