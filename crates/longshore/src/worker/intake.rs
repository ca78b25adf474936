//! Where the drivers of a worker get their deliveries from.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{Delivery, Error, Receipt, Result, Source, Subscribed, Text};
use tokio::{sync::Notify, time::Instant};

use super::{desk::Desk, turns::Turns, waiting::Waiting};

/// Where the drivers of a worker get their deliveries from: one source for each lane, shared by all
/// drivers.
///
/// A source knows one waker, so it is given one that wakes every waiting driver; whoever comes
/// first takes what there is.
pub(super) struct Intake {
    state: Mutex<State>,
    pub(super) waiting: Arc<Waiting>,
    waker: Waker,
    /// One for each lane, told when its source has ended by itself.
    ended: Vec<Notify>,
}

struct State {
    /// The most urgent first.
    lanes: Vec<Lane>,
    turns: Turns,
    /// Lost locks each driver has not looked at yet.
    lost: Vec<Vec<Receipt>>,
}

#[derive(Default)]
struct Lane {
    open: Option<Line>,
    /// A stopped source that still hands over what had arrived, and that.
    closing: Option<(Line, Vec<Delivery>)>,
    /// Closed sources whose last deliveries are still being handled.
    retiring: Vec<Line>,
    ended_with: Option<Error>,
}

struct Line {
    source: Box<dyn Source>,
    desk: Arc<Desk>,
    age: Age,
}

/// How long a source may take to hand over what it holds.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

impl Intake {
    pub(super) fn new(lanes: usize, turns: Turns, drivers: usize) -> Self {
        let waiting = Arc::new(Waiting::new(drivers));
        Self {
            state: Mutex::new(State {
                lanes: (0..lanes).map(|_| Lane::default()).collect(),
                turns,
                lost: vec![Vec::new(); drivers],
            }),
            waker: Waker::from(Arc::clone(&waiting)),
            waiting,
            ended: (0..lanes).map(|_| Notify::new()).collect(),
        }
    }

    /// Lets the drivers take from this source. `prefetch` is how much it holds at most.
    pub(super) fn open(&self, lane: usize, (source, settler): Subscribed, prefetch: u16) {
        let line = Line {
            source,
            desk: Arc::new(Desk::new(settler)),
            age: Age::new(prefetch),
        };
        if let Some(lane) = self.state().lanes.get_mut(lane) {
            lane.open = Some(line);
        }
        self.waiting.wake_all();
    }

    /// Takes up to `max` deliveries of one lane.
    pub(super) fn poll_take(
        &self,
        driver: usize,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Arc<Desk>> {
        self.waiting.register(driver, cx.waker());
        let mut state = self.state();
        let State { lanes, turns, .. } = &mut *state;
        let many = lanes.len() > 1;
        let mut shared = Context::from_waker(&self.waker);
        for nth in 0..lanes.len() {
            let at = turns.lane(nth);
            let Some(lane) = lanes.get_mut(at) else {
                continue;
            };
            let Some(line) = &mut lane.open else {
                continue;
            };
            let room = turns.share(at, max);
            match line.source.poll_receive(&mut shared, room, into) {
                Poll::Pending if many => line.age.is_empty(),
                Poll::Pending => {}
                Poll::Ready(Ok(n)) if n > 0 => {
                    if many {
                        turns.took(at, n);
                        line.age.took(n);
                    }
                    let desk = Arc::clone(&line.desk);
                    desk.took(n);
                    drop(state);
                    // The source has forgotten its waker; another driver may still be waiting.
                    self.waiting.wake_others(driver);
                    return Poll::Ready(desk);
                }
                Poll::Ready(ended) => {
                    lane.ended_with = ended.err();
                    lane.retire_open();
                    if let Some(ended) = self.ended.get(at) {
                        ended.notify_one();
                    }
                }
            }
        }
        Poll::Pending
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
        for lane in &mut state.lanes {
            lane.poll_lost(&mut shared, &mut lost);
        }
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
        self.waiting.wake_all();
    }

    /// Whether there is a source to take from.
    pub(super) fn is_open(&self, lane: usize) -> bool {
        self.state().open(lane).is_some()
    }

    /// Resolves once the source of this lane has ended by itself.
    pub(super) async fn ended(&self, lane: usize) {
        match self.ended.get(lane) {
            Some(ended) => ended.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Since when the oldest delivery that was not taken yet may have been here.
    pub(super) fn oldest(&self, lane: usize) -> Option<Instant> {
        self.state().open(lane).map(|line| line.age.oldest)
    }

    /// Stops taking, and answers what had arrived but never started, with where to settle it.
    /// Cancelling it loses nothing: another call goes on with it.
    pub(super) async fn close(&self, at: usize) -> Option<(Vec<Delivery>, Arc<Desk>)> {
        if let Some(lane) = self.state().lanes.get_mut(at)
            && let Some(mut line) = lane.open.take()
        {
            line.source.stop();
            lane.closing = Some((line, Vec::new()));
        }
        // What is not handed over in time comes back as after the death of a process.
        let drained = std::future::poll_fn(|cx| self.poll_drained(at, cx));
        let _ = tokio::time::timeout(CLOSING, drained).await;
        let mut state = self.state();
        let lane = state.lanes.get_mut(at)?;
        let (line, unstarted) = lane.closing.take()?;
        let desk = Arc::clone(&line.desk);
        desk.took(unstarted.len());
        desk.retire();
        lane.retiring.push(line);
        drop(state);
        self.waiting.wake_all();
        Some((unstarted, desk))
    }

    fn poll_drained(&self, at: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        let closing = state.lanes.get_mut(at).and_then(|l| l.closing.as_mut());
        let Some((line, unstarted)) = closing else {
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
        if desk.done(deliveries) {
            // Whoever looks next lets the source go.
            self.waiting.wake_all();
        }
    }

    /// Why the source ended by itself.
    pub(super) fn ended_with(&self, lane: usize) -> Option<Error> {
        self.state().lanes.get_mut(lane)?.ended_with.take()
    }

    pub(super) fn set_prefetch(&self, lane: usize, prefetch: u16) -> Result<()> {
        match self
            .state()
            .lanes
            .get_mut(lane)
            .and_then(|l| l.open.as_mut())
        {
            Some(line) => {
                line.source.set_prefetch(prefetch)?;
                line.age.prefetch = line.age.prefetch.max(usize::from(prefetch));
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn set_turns(&self, turns: Turns) {
        self.state().turns = turns;
        self.waiting.wake_all();
    }

    /// Why nothing can arrive in a lane just now.
    pub(super) fn trouble(&self) -> Option<Text> {
        let state = self.state();
        let mut open = state.lanes.iter().filter_map(|lane| lane.open.as_ref());
        open.find_map(|line| line.source.trouble())
    }

    /// Deliveries of each lane that were taken and are not settled yet.
    pub(super) fn unsettled(&self) -> Vec<usize> {
        let state = self.state();
        let lines = |lane: &Lane| {
            let closing = lane.closing.iter().map(|(line, _)| line);
            let lines = lane.open.iter().chain(closing).chain(&lane.retiring);
            lines.map(|line| line.desk.unsettled()).sum()
        };
        state.lanes.iter().map(lines).collect()
    }

    /// Drops every source. What is still unsettled comes back as after the death of a process.
    pub(super) fn drop_sources(&self) {
        for lane in &mut self.state().lanes {
            *lane = Lane::default();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&self, lane: usize) -> Option<&Line> {
        self.lanes.get(lane)?.open.as_ref()
    }
}

impl Lane {
    fn retire_open(&mut self) {
        if let Some(line) = self.open.take() {
            line.desk.retire();
            self.retiring.push(line);
        }
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, lost: &mut Vec<Receipt>) {
        let closing = self.closing.iter_mut().map(|(line, _)| line);
        let lines = self.open.iter_mut().chain(closing);
        for line in lines.chain(self.retiring.iter_mut()) {
            let _ = line.source.poll_lost(cx, lost);
        }
        self.retiring.retain(|line| line.desk.unsettled() > 0);
    }
}

/// Since when the oldest delivery of a source that was not taken yet may have been here: whatever
/// is here at one time has been taken once a whole prefetch was.
struct Age {
    prefetch: usize,
    oldest: Instant,
    taken: usize,
    /// When `taken` was begun to be counted.
    since: Instant,
}

impl Age {
    fn new(prefetch: u16) -> Self {
        let now = Instant::now();
        Self {
            prefetch: usize::from(prefetch),
            oldest: now,
            taken: 0,
            since: now,
        }
    }

    fn took(&mut self, deliveries: usize) {
        self.taken += deliveries;
        if self.taken >= self.prefetch {
            self.taken = 0;
            self.oldest = std::mem::replace(&mut self.since, Instant::now());
        }
    }

    fn is_empty(&mut self) {
        let now = Instant::now();
        (self.taken, self.oldest, self.since) = (0, now, now);
    }
}

#[cfg(test)]
mod tests;
