//! What is here of one subscription.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{Delivery, Error, Receipt, Settler, Source, Text};
use tokio::time::Instant;

use super::{Fault, faults::Shared};

/// What is here of one subscription.
pub(super) struct Stock {
    /// `None` while the connection is lost, and once it cannot come back.
    pub(super) source: Option<Box<dyn Source>>,
    pub(super) settler: Arc<dyn Settler>,
    /// What is locked, and whether it was handed out.
    pub(super) held: BTreeMap<Receipt, bool>,
    /// Read ahead, not handed out.
    pub(super) buffer: VecDeque<Delivery>,
    pub(super) late_until: Option<Instant>,
    pub(super) lost: Vec<Receipt>,
    pub(super) trouble: Option<Text>,
    pub(super) ended: Option<Error>,
    pub(super) stopped: bool,
    /// Its source was dropped.
    pub(super) closed: bool,
    pub(super) reopening: bool,
    pub(super) prefetch: u16,
    /// Lost at the broker, and the process has not heard of it.
    pub(super) untold: Vec<Receipt>,
    pub(super) receiving: Option<Waker>,
    pub(super) losing: Option<Waker>,
}

impl Stock {
    pub(super) fn is_over(&self) -> bool {
        self.stopped || self.closed
    }

    /// Takes everything that has arrived; `true` where nothing more will.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>, shared: &Shared) -> bool {
        let Some(source) = &mut self.source else {
            return false;
        };
        let mut arrived = Vec::new();
        let over = loop {
            match source.poll_receive(cx, usize::MAX, &mut arrived) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(Ok(_)) => break true,
                Poll::Ready(Err(error)) => {
                    self.ended.get_or_insert(error);
                    break true;
                }
                Poll::Pending => break false,
            }
        };
        for delivery in arrived {
            self.held.insert(delivery.receipt, false);
            self.buffer.push_back(delivery);
            if self.late_until.is_none() && !self.stopped && shared.strikes(Fault::DeliveryLate) {
                let late = shared.late();
                self.late_until = Some(Instant::now() + late);
                let waker = cx.waker().clone();
                shared.after(late.max(Duration::from_millis(1)), move || waker.wake());
            }
        }
        over
    }

    /// These locks are gone; answers those the process knows of. The others are dropped silently.
    pub(super) fn drop_locks(&mut self, lost: &[Receipt]) -> Vec<Receipt> {
        let mut known = Vec::new();
        for receipt in lost {
            match self.held.remove(receipt) {
                Some(false) => self.buffer.retain(|d| d.receipt != *receipt),
                _ => known.push(*receipt),
            }
        }
        known
    }

    pub(super) fn wake(&mut self) {
        let wakers = [self.receiving.take(), self.losing.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
