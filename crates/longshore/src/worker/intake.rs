//! Where the drivers of a worker get their deliveries from.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use longshore_core::{Delivery, Error, Receipt, Result, Settler, Source, Subscribed, Text};
use tokio::sync::Notify;

/// Where the drivers of a worker get their deliveries from: one source, shared by all of them.
///
/// A source knows one waker, so it is given one that wakes every waiting driver; whoever comes
/// first takes what there is.
pub(super) struct Intake {
    state: Mutex<State>,
    waiting: Arc<Waiting>,
    waker: Waker,
    /// Told when the source has ended by itself.
    pub(super) ended: Notify,
}

#[derive(Default)]
struct State {
    open: Option<Line>,
    /// A stopped source that still hands over what had arrived, and that.
    closing: Option<(Line, Vec<Delivery>)>,
    /// Closed sources whose last deliveries are still being handled.
    retiring: Vec<Line>,
    ended_with: Option<Error>,
    /// Lost locks each driver has not looked at yet.
    lost: Vec<Vec<Receipt>>,
}

struct Line {
    source: Box<dyn Source>,
    desk: Arc<Desk>,
}

/// Where the deliveries of one source are settled, and how many still have to be.
pub(super) struct Desk {
    pub(super) settler: Arc<dyn Settler>,
    unsettled: AtomicUsize,
    /// Its source takes nothing any more.
    retired: AtomicBool,
}

/// How long a source may take to hand over what it holds.
const CLOSING: Duration = Duration::from_secs(5);

impl Intake {
    pub(super) fn new(drivers: usize) -> Self {
        let waiting = Arc::new(Waiting(Mutex::new(vec![None; drivers])));
        Self {
            state: Mutex::new(State {
                lost: vec![Vec::new(); drivers],
                ..State::default()
            }),
            waker: Waker::from(Arc::clone(&waiting)),
            waiting,
            ended: Notify::new(),
        }
    }

    /// Lets the drivers take from this source.
    pub(super) fn open(&self, (source, settler): Subscribed) {
        let desk = Arc::new(Desk {
            settler,
            unsettled: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
        });
        self.state().open = Some(Line { source, desk });
        self.wake_all();
    }

    /// Takes up to `max` deliveries.
    pub(super) fn poll_take(
        &self,
        driver: usize,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Arc<Desk>> {
        self.waiting.register(driver, cx.waker());
        let mut state = self.state();
        let Some(line) = &mut state.open else {
            return Poll::Pending;
        };
        let mut shared = Context::from_waker(&self.waker);
        let taken = match line.source.poll_receive(&mut shared, max, into) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(taken) => taken,
        };
        let desk = Arc::clone(&line.desk);
        match taken {
            Ok(n) if n > 0 => {
                desk.unsettled.fetch_add(n, Ordering::AcqRel);
                drop(state);
                // The source has forgotten its waker; another driver may still be waiting.
                self.waiting.wake_others(driver);
                Poll::Ready(desk)
            }
            ended => {
                state.ended_with = ended.err();
                if let Some(line) = state.open.take() {
                    line.desk.retired.store(true, Ordering::Release);
                    state.retiring.push(line);
                }
                drop(state);
                self.ended.notify_one();
                Poll::Pending
            }
        }
    }

    /// Locks lost that this driver has not heard of. Every driver hears of all of them.
    pub(super) fn poll_lost(
        &self,
        driver: usize,
        cx: &mut Context<'_>,
        into: &mut Vec<Receipt>,
    ) -> Poll<()> {
        self.waiting.register(driver, cx.waker());
        let mut state = self.state();
        let mut shared = Context::from_waker(&self.waker);
        let mut lost = Vec::new();
        let State {
            open,
            closing,
            retiring,
            ..
        } = &mut *state;
        let closing = closing.iter_mut().map(|(line, _)| line);
        for line in open.iter_mut().chain(closing).chain(retiring.iter_mut()) {
            let _ = line.source.poll_lost(&mut shared, &mut lost);
        }
        retiring.retain(|line| line.desk.unsettled.load(Ordering::Acquire) > 0);
        if !lost.is_empty() {
            for inbox in &mut state.lost {
                inbox.extend_from_slice(&lost);
            }
            self.waiting.wake_others(driver);
        }
        match state.lost.get_mut(driver) {
            Some(inbox) if !inbox.is_empty() => {
                into.append(inbox);
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    /// Tells every driver that these must not go on, as if their locks were lost.
    pub(super) fn lose(&self, lost: &[Receipt]) {
        for inbox in &mut self.state().lost {
            inbox.extend_from_slice(lost);
        }
        self.wake_all();
    }

    /// Whether there is a source to take from.
    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// Stops taking, and answers what had arrived but never started, with where to settle it.
    /// Cancelling it loses nothing: another call goes on with it.
    pub(super) async fn close(&self) -> Option<(Vec<Delivery>, Arc<Desk>)> {
        {
            let mut state = self.state();
            if let Some(mut line) = state.open.take() {
                line.source.stop();
                state.closing = Some((line, Vec::new()));
            }
        }
        // What is not handed over in time comes back as after the death of a process.
        let drained = std::future::poll_fn(|cx| self.poll_drained(cx));
        let _ = tokio::time::timeout(CLOSING, drained).await;
        let mut state = self.state();
        let (line, unstarted) = state.closing.take()?;
        let desk = Arc::clone(&line.desk);
        desk.unsettled.fetch_add(unstarted.len(), Ordering::AcqRel);
        desk.retired.store(true, Ordering::Release);
        state.retiring.push(line);
        drop(state);
        self.wake_all();
        Some((unstarted, desk))
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        let Some((line, unstarted)) = &mut state.closing else {
            return Poll::Ready(());
        };
        loop {
            match line.source.poll_receive(cx, usize::MAX, unstarted) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// These many deliveries were settled, or their locks were lost.
    pub(super) fn done(&self, desk: &Desk, deliveries: usize) {
        let before = desk.unsettled.fetch_sub(deliveries, Ordering::AcqRel);
        if before == deliveries && desk.retired.load(Ordering::Acquire) {
            // Whoever looks next lets the source go.
            self.wake_all();
        }
    }

    /// Why the source ended by itself.
    pub(super) fn ended_with(&self) -> Option<Error> {
        self.state().ended_with.take()
    }

    pub(super) fn set_prefetch(&self, prefetch: u16) -> Result<()> {
        match &mut self.state().open {
            Some(line) => line.source.set_prefetch(prefetch),
            None => Ok(()),
        }
    }

    pub(super) fn trouble(&self) -> Option<Text> {
        self.state().open.as_ref()?.source.trouble()
    }

    pub(super) fn wake_all(&self) {
        self.waiting.wake_others(usize::MAX);
    }

    /// Drops every source. What is still unsettled comes back as after the death of a process.
    pub(super) fn drop_sources(&self) {
        let mut state = self.state();
        state.open = None;
        state.closing = None;
        state.retiring.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wakers of drivers that wait, one place each.
struct Waiting(Mutex<Vec<Option<Waker>>>);

impl Waiting {
    fn register(&self, driver: usize, waker: &Waker) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(driver) {
            match place {
                Some(there) => there.clone_from(waker),
                None => *place = Some(waker.clone()),
            }
        }
    }

    fn wake_others(&self, driver: usize) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, place) in places.iter_mut().enumerate() {
            if index != driver
                && let Some(waker) = place.take()
            {
                waker.wake();
            }
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_others(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;
    use longshore_core::{Envelope, Part, Settlement, Standing, Unsettled};

    use super::*;

    /// Hands over what it has and remembers a waker only where it has nothing.
    struct Heap(VecDeque<Delivery>);

    impl Source for Heap {
        fn poll_receive(
            &mut self,
            _: &mut Context<'_>,
            max: usize,
            into: &mut Vec<Delivery>,
        ) -> Poll<Result<usize>> {
            let taken = max.min(self.0.len());
            into.extend(self.0.drain(..taken));
            match taken {
                0 => Poll::Pending,
                taken => Poll::Ready(Ok(taken)),
            }
        }
        fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
            Poll::Pending
        }
        fn stop(&mut self) {}
        fn set_prefetch(&mut self, _: u16) -> Result<()> {
            Ok(())
        }
        fn trouble(&self) -> Option<Text> {
            None
        }
    }

    #[async_trait]
    impl Settler for Heap {
        async fn start(&self, _: &[(Receipt, u32)]) -> Vec<Result<()>> {
            Vec::new()
        }
        async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
            Vec::new()
        }
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_driver_that_takes_a_part_wakes_the_others_for_the_rest() {
        let delivery = |tag| Delivery {
            envelope: Envelope::default(),
            receipt: Receipt {
                scope: 0,
                tag: [tag, 0],
            },
            part: Part::Lane(0),
            attempt: 1,
            suspect: false,
            alone: false,
            standing: Standing::Unknown,
            defect: None,
        };
        let intake = Intake::new(2);
        let idle = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&idle));
        let mut cx = Context::from_waker(&waker);
        let mut batch = Vec::new();
        assert!(intake.poll_take(0, &mut cx, 8, &mut batch).is_pending());
        let heap = VecDeque::from([delivery(1), delivery(2)]);
        intake.state().open = Some(Line {
            source: Box::new(Heap(heap)),
            desk: Arc::new(Desk {
                settler: Arc::new(Heap(VecDeque::new())),
                unsettled: AtomicUsize::new(0),
                retired: AtomicBool::new(false),
            }),
        });
        let mut busy = Context::from_waker(Waker::noop());
        assert!(intake.poll_take(1, &mut busy, 1, &mut batch).is_ready());
        assert!(idle.0.load(Ordering::SeqCst), "one more is there");
        assert!(intake.poll_take(0, &mut cx, 8, &mut batch).is_ready());
        assert_eq!(batch.len(), 2);
    }
}
