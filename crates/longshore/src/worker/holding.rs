//! The partitions a worker owns.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{Stream, task::AtomicWaker};
use longshore_core::{Delivery, Error, Receipt, Source, Subscribed, Text};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    desk::{Desk, Told},
    waiting::Waiting,
};
use crate::session::Tenure;

/// One owned partition with its open source.
pub(super) struct Holding {
    pub(super) index: u16,
    pub(super) desk: Arc<Desk>,
    source: Mutex<Option<Box<dyn Source>>>,
    waker: AtomicWaker,
    ended: CancellationToken,
    why: Mutex<Option<Text>>,
}

impl Holding {
    pub(super) fn new(
        index: u16,
        tenure: Arc<Tenure>,
        (source, settler): Subscribed,
        told: Arc<Told>,
    ) -> Self {
        Self {
            index,
            desk: Arc::new(Desk::owned(settler, tenure, told)),
            source: Mutex::new(Some(source)),
            waker: AtomicWaker::new(),
            ended: CancellationToken::new(),
            why: Mutex::default(),
        }
    }

    /// Nothing more of it may start here; its source hands over what has arrived and ends.
    pub(super) fn stop(&self) {
        self.desk.closing.cancel();
        if let Some(source) = &mut *self.source() {
            source.stop();
        }
        self.waker.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.desk.closing.is_cancelled()
    }

    /// What is unsettled then comes back as after the death of a process.
    pub(super) fn drop_source(&self) {
        self.desk.closing.cancel();
        *self.source() = None;
        self.waker.wake();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.source().is_none()
    }

    /// It is of no use any more, and nobody has asked for that.
    pub(super) fn end(&self, why: Text) {
        self.why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(why);
        self.ended.cancel();
    }

    /// Resolves once it has ended by itself, with the reason.
    pub(super) async fn ended(&self) -> Text {
        self.ended.cancelled().await;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or_default()
    }

    pub(super) fn trouble(&self) -> Option<Text> {
        self.source().as_ref()?.trouble()
    }

    fn source(&self) -> MutexGuard<'_, Option<Box<dyn Source>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a source tells.
pub(super) enum Arrived {
    Deliveries(Vec<Delivery>),
    Lost(Vec<Receipt>),
    /// Nothing more will come.
    End(Option<Error>),
}

/// Everything a holding's source tells, until that is dropped.
pub(super) struct Arrivals {
    holding: Arc<Holding>,
    ended: bool,
}

impl Arrivals {
    pub(super) fn of(holding: Arc<Holding>) -> Self {
        Self {
            holding,
            ended: false,
        }
    }
}

impl Stream for Arrivals {
    type Item = (Arc<Holding>, Arrived);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let holding = &this.holding;
        holding.waker.register(cx.waker());
        let mut source = holding.source();
        let Some(source) = &mut *source else {
            return Poll::Ready(None);
        };
        let mut lost = Vec::new();
        let _ = source.poll_lost(cx, &mut lost);
        let arrived = if !lost.is_empty() {
            Arrived::Lost(lost)
        } else if this.ended {
            return Poll::Pending;
        } else {
            let mut deliveries = Vec::new();
            match source.poll_receive(cx, usize::MAX, &mut deliveries) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => Arrived::Deliveries(deliveries),
                Poll::Ready(ended) => {
                    this.ended = true;
                    Arrived::End(ended.err())
                }
            }
        };
        Poll::Ready(Some((Arc::clone(holding), arrived)))
    }
}

/// What the drivers of a queue with sessions share.
pub(crate) struct Holdings {
    open: Mutex<BTreeMap<u16, Arc<Holding>>>,
    pub(super) slots: Arc<Slots>,
    /// At most one message that came back unexplained too often runs at a time.
    pub(super) apart: Arc<Semaphore>,
}

impl Holdings {
    pub(super) fn new(waiting: Arc<Waiting>) -> Self {
        Self {
            open: Mutex::default(),
            slots: Arc::new(Slots {
                used: AtomicUsize::new(0),
                wanted: AtomicBool::new(false),
                waiting,
            }),
            apart: Arc::new(Semaphore::new(1)),
        }
    }

    pub(super) fn add(&self, holding: &Arc<Holding>) {
        self.open().insert(holding.index, Arc::clone(holding));
    }

    pub(super) fn remove(&self, holding: &Arc<Holding>) {
        let mut open = self.open();
        if open
            .get(&holding.index)
            .is_some_and(|h| Arc::ptr_eq(h, holding))
        {
            open.remove(&holding.index);
        }
    }

    /// How much of a partition is here.
    pub(super) fn unsettled(&self, index: u16) -> usize {
        self.open().get(&index).map_or(0, |h| h.desk.unsettled())
    }

    /// Something of each, by index.
    pub(super) fn map<T>(&self, of: impl Fn(&Holding) -> Option<T>) -> Vec<T> {
        self.open().values().filter_map(|h| of(h)).collect()
    }

    pub(super) fn trouble(&self) -> Option<Text> {
        self.open().values().find_map(|holding| holding.trouble())
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Holding>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handler slots of a queue with sessions. They are not shared out beforehand: a driver may own
/// all there is to do.
pub(super) struct Slots {
    used: AtomicUsize,
    /// A driver waits for one.
    wanted: AtomicBool,
    waiting: Arc<Waiting>,
}

impl Slots {
    /// Takes a slot if fewer than `most` are taken. Whoever gets none is woken when one is free.
    pub(super) fn take(self: &Arc<Self>, most: usize) -> Option<Slot> {
        for last in [false, true] {
            let one_more = |used: usize| (used < most).then_some(used + 1);
            let taken = self
                .used
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
            if taken.is_ok() {
                return Some(Slot(Arc::clone(self)));
            }
            if !last {
                // One may be freed before it is known that somebody waits: look again.
                self.wanted.store(true, Ordering::SeqCst);
            }
        }
        None
    }
}

/// The right to run one handler.
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::SeqCst);
        if self.0.wanted.swap(false, Ordering::SeqCst) {
            self.0.waiting.wake_all();
        }
    }
}
