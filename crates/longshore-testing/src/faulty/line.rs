//! One subscription, and what is here of it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use longshore_core::{
    Delivery, Error, ErrorKind, Ownership, Part, Receipt, Result, Settler, Subscribed,
    Subscription, Text, Transport,
};
use tokio::time::Instant;

use super::{Fault, faults::Shared, stock::Stock};

/// How often it is tried to subscribe again.
const AGAIN: Duration = Duration::from_millis(100);

/// One subscription, and what is here of it: shared by its source, its settler and the connection.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    inner: Arc<dyn Transport>,
    subscription: Subscription,
    state: Mutex<Stock>,
}

impl Line {
    pub(super) fn open(
        shared: Arc<Shared>,
        inner: Arc<dyn Transport>,
        subscription: Subscription,
        (source, settler): Subscribed,
    ) -> Arc<Self> {
        let prefetch = subscription.prefetch;
        let state = Stock {
            source: Some(source),
            settler,
            held: BTreeMap::new(),
            buffer: VecDeque::new(),
            late_until: None,
            lost: Vec::new(),
            trouble: None,
            ended: None,
            stopped: false,
            closed: false,
            reopening: false,
            prefetch,
            untold: Vec::new(),
            receiving: None,
            losing: None,
        };
        let line = Arc::new(Self {
            shared,
            inner,
            subscription,
            state: Mutex::new(state),
        });
        line.shared.connection().add_line(&line);
        line
    }

    fn is_partition(&self) -> bool {
        matches!(self.subscription.part, Part::Partition { .. })
    }

    pub(super) fn stands_for(&self, ownership: Ownership) -> bool {
        self.subscription.ownership == Some(ownership)
    }

    pub(super) fn queue(&self) -> &longshore_core::Name {
        &self.subscription.topology.queue
    }

    /// The locks of what was handed out.
    pub(super) fn held(&self) -> Vec<Receipt> {
        let state = self.state();
        let out = state.held.iter().filter(|(_, out)| **out);
        out.map(|(receipt, _)| *receipt).collect()
    }

    pub(super) fn holds(&self, receipt: &Receipt) -> bool {
        self.state().held.contains_key(receipt)
    }

    /// Settled, or known to be lost.
    pub(super) fn forget(&self, receipt: &Receipt) {
        self.state().held.remove(receipt);
    }

    pub(super) fn settler(&self) -> Arc<dyn Settler> {
        Arc::clone(&self.state().settler)
    }

    pub(super) fn poll_receive(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let mut state = self.state();
        state.receiving = Some(cx.waker().clone());
        if self.shared.is_dead() {
            return Poll::Pending;
        }
        let over = state.read_ahead(cx, &self.shared);
        if let Some(until) = state.late_until {
            if until > Instant::now() && !state.stopped {
                return Poll::Pending;
            }
            state.late_until = None;
        }
        if !state.buffer.is_empty() {
            let count = max.max(1).min(state.buffer.len());
            let Stock { buffer, held, .. } = &mut *state;
            for delivery in buffer.drain(..count) {
                held.insert(delivery.receipt, true);
                into.push(delivery);
            }
            drop(state);
            for _ in 0..count {
                self.tempt();
            }
            return Poll::Ready(Ok(count));
        }
        match &state.ended {
            Some(error) => Poll::Ready(Err(error.again())),
            None if over || state.stopped => Poll::Ready(Ok(0)),
            None => Poll::Pending,
        }
    }

    /// Something was handed out that can be lost a little later.
    fn tempt(self: &Arc<Self>) {
        let shared = &self.shared;
        if shared.breaker.is_some() && !self.is_partition() && shared.strikes(Fault::LockLost) {
            let line = Arc::downgrade(self);
            shared.after(shared.late(), move || {
                if let Some(line) = line.upgrade() {
                    line.break_one();
                }
            });
        }
        if self.is_partition() && shared.strikes(Fault::OwnershipLost) {
            let (line, news) = (Arc::downgrade(self), shared.news());
            shared.after(shared.late(), move || {
                if let Some(line) = line.upgrade() {
                    line.lose_ownership(news);
                }
            });
        }
        if shared.strikes(Fault::Disconnect) {
            let (of, outage, news) = (shared.weak(), shared.outage(), shared.news());
            shared.after(shared.late(), move || {
                if let Some(shared) = of.upgrade().filter(|shared| !shared.is_dead()) {
                    shared.disconnect(outage, news);
                }
            });
        }
    }

    fn break_one(&self) {
        let held = self.held();
        if let (Some(breaker), false) = (&self.shared.breaker, held.is_empty()) {
            breaker(held[self.shared.below(held.len())]);
        }
    }

    fn lose_ownership(&self, news: Duration) {
        let memberships = self.shared.connection().memberships();
        if let Some(ownership) = self.subscription.ownership {
            let owner = memberships.iter().find(|m| m.owned().contains(&ownership));
            if let Some(owner) = owner {
                owner.lose(ownership, news);
            }
        }
    }

    pub(super) fn poll_lost(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        into: &mut Vec<Receipt>,
    ) -> Poll<()> {
        let mut state = self.state();
        state.losing = Some(cx.waker().clone());
        if self.shared.is_dead() {
            return Poll::Pending;
        }
        let mut lost = Vec::new();
        if let Some(source) = &mut state.source {
            let _ = source.poll_lost(cx, &mut lost);
        }
        let lost = state.drop_locks(&lost);
        if !lost.is_empty() {
            let news = self.shared.news();
            if news.is_zero() {
                state.lost.extend(lost);
            } else {
                let line = Arc::downgrade(self);
                self.shared.after(news, move || {
                    if let Some(line) = line.upgrade() {
                        let mut state = line.state();
                        state.lost.extend(lost);
                        state.wake();
                    }
                });
            }
        }
        if state.lost.is_empty() {
            return Poll::Pending;
        }
        into.append(&mut state.lost);
        Poll::Ready(())
    }

    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(source) = &mut state.source {
            source.stop();
        }
        state.wake();
    }

    pub(super) fn set_prefetch(&self, prefetch: u16) -> Result<()> {
        let mut state = self.state();
        if let Some(source) = &mut state.source {
            source.set_prefetch(prefetch)?;
        }
        state.prefetch = prefetch;
        Ok(())
    }

    pub(super) fn trouble(&self) -> Option<Text> {
        let state = self.state();
        let inner = || state.source.as_ref()?.trouble();
        state.trouble.clone().or_else(inner)
    }

    /// Its source is dropped.
    pub(super) fn close(&self) {
        let source = {
            let mut state = self.state();
            state.closed = true;
            state.buffer.clear();
            state.held.clear();
            state.source.take()
        };
        drop(source);
    }

    /// Loses all of it at the broker; the process has still to hear of it.
    pub(super) fn cut(&self) {
        let source = {
            let mut state = self.state();
            state.buffer.clear();
            state.late_until = None;
            let held = std::mem::take(&mut state.held);
            let out = held.into_iter().filter(|(_, out)| *out);
            state.untold.extend(out.map(|(receipt, _)| receipt));
            state.source.take()
        };
        drop(source);
    }

    /// The process hears that it was cut off.
    pub(super) fn tell(&self, why: &'static str) {
        let mut state = self.state();
        let untold = std::mem::take(&mut state.untold);
        state.lost.extend(untold);
        if self.subscription.ownership.is_some() {
            let error = || Error::new(ErrorKind::Stale, format!("injected: {why}"));
            state.ended.get_or_insert_with(error);
        } else if state.source.is_none() {
            state.trouble = Some(Text::from_static(why));
        }
        state.wake();
    }

    /// Subscribes again, where that is of use: what was owned has to be acquired first.
    pub(super) fn reopen(self: &Arc<Self>) {
        {
            let mut state = self.state();
            if self.subscription.ownership.is_some()
                || state.source.is_some()
                || state.is_over()
                || std::mem::replace(&mut state.reopening, true)
            {
                return;
            }
        }
        let line = Arc::clone(self);
        self.shared.spawn(async move {
            while !line.reopened().await {
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// `true` once nothing more is to be done.
    async fn reopened(&self) -> bool {
        let mut subscription = self.subscription.clone();
        {
            let mut state = self.state();
            if state.is_over() || self.shared.is_dead() {
                state.reopening = false;
                return true;
            }
            subscription.prefetch = state.prefetch;
        }
        if self.shared.connection().is_lost() {
            return false;
        }
        let Ok((mut source, settler)) = self.inner.subscribe(subscription).await else {
            return false;
        };
        let lost = self.shared.connection().is_lost();
        let mut state = self.state();
        if lost {
            return false;
        }
        state.reopening = false;
        if state.is_over() || self.shared.is_dead() {
            return true;
        }
        let _ = source.set_prefetch(state.prefetch);
        state.source = Some(source);
        state.settler = settler;
        state.trouble = None;
        state.wake();
        true
    }

    fn state(&self) -> MutexGuard<'_, Stock> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
