//! What the feeds of one subscription share with its source and its settler.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use longshore_core::{Delivery, Receipt, Text};
use tokio::sync::Notify;

use crate::{gate::Gate, held::Held};

/// Which of the two channels of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Lane,
    Quarantine,
}

/// Deliveries between the channels and whoever takes them. Bounded by the prefetch of both.
#[derive(Default)]
pub(crate) struct Intake {
    inner: Mutex<Inner>,
    gate: Arc<Gate>,
    settled: Notify,
    arrival: Arc<AtomicWaker>,
    loss: AtomicWaker,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<(Arc<Held>, Delivery)>,
    lost: Vec<Receipt>,
    held: Vec<Arc<Held>>,
    trouble: [Option<Text>; 2],
    /// The owner wants no more.
    stopping: bool,
    /// Which slots will bring nothing more.
    drained: [bool; 2],
}

impl Intake {
    /// Hands nothing out of the quarantine while this gate is shut, and one at a time.
    pub(crate) fn behind(gate: Arc<Gate>) -> Self {
        let intake = Self {
            gate,
            ..Self::default()
        };
        intake.gate.wakes(&intake.arrival);
        intake
    }

    /// A channel begins to deliver.
    pub(crate) fn open(&self, slot: Slot, held: Arc<Held>) {
        let mut inner = self.lock();
        inner.held.push(held);
        if let Some(trouble) = inner.trouble.get_mut(slot as usize) {
            *trouble = None;
        }
    }

    /// Deliveries arrived on a channel.
    pub(crate) fn push(&self, held: &Arc<Held>, deliveries: impl Iterator<Item = Delivery>) {
        let mut inner = self.lock();
        let deliveries = deliveries.map(|delivery| (held.clone(), delivery));
        inner.ready.extend(deliveries);
        drop(inner);
        self.arrival.wake();
    }

    /// A channel has ended: what it delivered and nobody took is forgotten, the rest is lost.
    pub(crate) fn close(&self, held: &Arc<Held>) {
        let mut inner = self.lock();
        // Under the lock of the buffer, so that each delivery is either taken before or never.
        let lost = held.lose();
        inner.ready.retain(|(from, _)| from.scope != held.scope);
        inner.held.retain(|other| other.scope != held.scope);
        inner.lost.extend(lost);
        drop(inner);
        self.loss.wake();
    }

    pub(crate) fn close_all(&self) {
        let held = self.lock().held.clone();
        for held in &held {
            self.close(held);
        }
    }

    pub(crate) fn set_trouble(&self, slot: Slot, why: Option<Text>) {
        if let Some(trouble) = self.lock().trouble.get_mut(slot as usize) {
            *trouble = why;
        }
    }

    pub(crate) fn trouble(&self) -> Option<Text> {
        self.lock().trouble.iter().flatten().next().cloned()
    }

    /// The owner wants no more.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
    }

    /// A slot will bring nothing more.
    pub(crate) fn drained(&self, slot: Slot) {
        if let Some(drained) = self.lock().drained.get_mut(slot as usize) {
            *drained = true;
        }
        self.arrival.wake();
        self.settled.notify_waiters();
    }

    /// Waits until nothing is half cancelled. What reaches a queue in the middle of a cancellation
    /// RabbitMQ hands to the consumer and never delivers: it returns with its channel, counted.
    pub(crate) async fn not_cancelling(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if !self.cancelling() {
                return;
            }
            settled.await;
        }
    }

    fn cancelling(&self) -> bool {
        let inner = self.lock();
        inner.stopping && !inner.drained.iter().all(|drained| *drained)
    }

    /// Something of this channel is settled: out of the quarantine, the next may be handed out.
    pub(crate) fn freed(&self, held: &Held) {
        if held.quarantine {
            self.arrival.wake();
        }
    }

    /// The channel a receipt belongs to, while that lives.
    pub(crate) fn held(&self, scope: u64) -> Option<Arc<Held>> {
        let inner = self.lock();
        inner.held.iter().find(|held| held.scope == scope).cloned()
    }

    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<usize> {
        self.arrival.register(cx.waker());
        let shut = self.gate.is_shut();
        let mut inner = self.lock();
        let (mut count, mut waiting) = (0, VecDeque::new());
        while count < max
            && let Some((held, delivery)) = inner.ready.pop_front()
        {
            if held.quarantine && (shut || held.suspect_is_out()) {
                waiting.push_back((held, delivery));
                continue;
            }
            held.taken(&delivery);
            into.push(delivery);
            count += 1;
        }
        for delivery in waiting.into_iter().rev() {
            inner.ready.push_front(delivery);
        }
        let over = inner.ready.is_empty() && inner.drained.iter().all(|drained| *drained);
        match count {
            0 if max > 0 && !over => Poll::Pending,
            count => Poll::Ready(count),
        }
    }

    pub(crate) fn poll_lost(&self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.loss.register(cx.waker());
        let mut inner = self.lock();
        match inner.lost.is_empty() {
            true => Poll::Pending,
            false => {
                into.append(&mut inner.lost);
                Poll::Ready(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
