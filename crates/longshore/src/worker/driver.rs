//! The loop of one core inside a worker.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, poll, stream::FuturesUnordered};
use longshore_core::{Delivery, Receipt, Settlement, Verdict, chaos::Flaw};
use tokio::time::Instant;

use super::{
    SharedRef,
    admit::{self, Admission, Admitted},
    attempt::{About, Attempt},
    conclude::{self, Ending},
    desk::{Desk, Settled},
    handle::{Control, State},
    notice::Reader,
    settle::settle,
    spare::Spare,
    window::Window,
};
use crate::{Context, context::Start, session::Place};

/// The loop of one core inside a worker: takes a batch, polls each handler once in place, settles
/// those that are done and parks the others.
pub(super) struct Driver {
    index: usize,
    drivers: usize,
    shared: SharedRef,
    control: Reader<Control>,
    /// Where its messages come from in a queue with sessions.
    window: Window,
    parked: FuturesUnordered<Attempt>,
    /// Of those parked, by lock.
    running: BTreeMap<Receipt, Context>,
    /// Those somebody has to be asked about before they start.
    asking: FuturesUnordered<BoxFuture<'static, Admitted>>,
    settling: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Ended in this pass, not yet on their way to the broker.
    ended: Vec<(Arc<Desk>, Settlement)>,
    spare: Spare,
    /// In this pass.
    started: u64,
}

impl Driver {
    pub(super) fn new(
        index: usize,
        drivers: usize,
        shared: SharedRef,
        control: Reader<Control>,
        window: Window,
    ) -> Self {
        Self {
            index,
            drivers,
            shared,
            control,
            window,
            parked: FuturesUnordered::new(),
            running: BTreeMap::new(),
            asking: FuturesUnordered::new(),
            settling: FuturesUnordered::new(),
            ended: Vec::new(),
            spare: Spare::default(),
            started: 0,
        }
    }

    /// Runs until the worker stops and everything taken here is settled, or the stop deadline and
    /// the grace after it have passed.
    pub(super) async fn run(mut self) {
        let (mut batch, mut lost) = (Vec::new(), Vec::new());
        loop {
            let control = self.control.see();
            let stopping = match control.state {
                State::Stopping { deadline } => Some(deadline),
                _ => None,
            };
            if stopping.is_some() && self.is_idle() {
                return;
            }
            let (room, wait) = self.room(&control);
            let most = if room > 0 { control.concurrency } else { 0 };
            let (intake, index) = (&self.shared.intake, self.index);
            tokio::select! {
                biased;
                // A dropped handle has said `Stopping` before; from then on nothing changes.
                _ = self.control.changed(), if stopping.is_none() => {}
                () = async { tokio::time::sleep_until(stopping.unwrap_or_else(Instant::now)).await },
                    if stopping.is_some() => return self.give_up().await,
                () = poll_fn(|cx| intake.poll_lost(index, cx, &mut lost)) => self.lose(&lost),
                Some((about, ending)) = self.parked.next(), if !self.parked.is_empty() =>
                    self.end(about, ending),
                Some(admitted) = self.asking.next(), if !self.asking.is_empty() =>
                    self.admitted(admitted).await,
                Some(()) = self.settling.next(), if !self.settling.is_empty() => {}
                () = poll_fn(|cx| self.window.poll(cx, most)), if !self.window.is_empty() =>
                    self.serve(room, most).await,
                desk = poll_fn(|cx| intake.poll_take(index, cx, room, &mut batch)), if room > 0 =>
                    self.take(&mut batch, &desk).await,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            while let Some(Some((about, ending))) = self.parked.next().now_or_never() {
                self.end(about, ending);
            }
            self.hand_over().await;
            lost.clear();
            // With handlers and source always ready nothing else would let other tasks run.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn is_idle(&self) -> bool {
        self.parked.is_empty()
            && self.asking.is_empty()
            && self.settling.is_empty()
            && self.ended.is_empty()
            && self.window.is_empty()
    }

    /// How many more may start here now, and how long to wait where only the rate forbids it.
    fn room(&self, control: &Control) -> (usize, Option<Duration>) {
        if control.state != State::Running {
            return (0, None);
        }
        let room = match self.window.is_empty() {
            // The slots are shared out evenly; the first drivers take what is left over.
            true => {
                let share = control.concurrency / self.drivers
                    + usize::from(self.index < control.concurrency % self.drivers);
                share.saturating_sub(self.parked.len() + self.asking.len())
            }
            // Each start takes a slot of those all drivers share.
            false => control.concurrency,
        };
        match &self.shared.pace {
            Some(pace) if room > 0 => {
                match pace.allow(room, self.shared.client.clock().monotonic()) {
                    Ok(allowed) => (allowed, None),
                    Err(wait) => (0, Some(wait)),
                }
            }
            _ => (room, None),
        }
    }

    /// Starts what was taken from a lane.
    async fn take(&mut self, batch: &mut Vec<Delivery>, desk: &Arc<Desk>) {
        self.shared.work.consumed.increment(batch.len() as u64);
        let (wall, mut starts) = (self.shared.client.clock().wall(), 0);
        for delivery in batch.drain(..) {
            self.shared.dedup.meet(&delivery);
            if Flaw::SettleBeforeHandler.on() {
                let done = Settlement::complete(delivery.receipt, delivery.attempt);
                desk.settler.settle(vec![done]).await;
            }
            starts += usize::from(self.start(delivery, Arc::clone(desk), wall).await);
        }
        self.paid(starts);
    }

    /// Starts what has its turn in the sessions of this driver.
    async fn serve(&mut self, room: usize, most: usize) {
        let lost = std::mem::take(&mut self.window.lost);
        self.lose(&lost);
        let (wall, mut starts) = (self.shared.client.clock().wall(), 0);
        while starts < room
            && let Some((delivery, desk)) = self.window.next(most)
        {
            starts += usize::from(self.start(delivery, desk, wall).await);
        }
        self.paid(starts);
    }

    fn paid(&self, starts: usize) {
        if let Some(pace) = &self.shared.pace {
            pace.started(starts);
        }
    }

    /// Starts a delivery once everybody agrees; `false` where it never will.
    async fn start(&mut self, mut delivery: Delivery, desk: Arc<Desk>, wall: SystemTime) -> bool {
        let most = self.shared.settings.max_attempts;
        if let Some(verdict) = conclude::refusal(&mut delivery, most, wall) {
            self.set_aside(delivery, verdict, &desk);
            return false;
        }
        if admit::must_ask(&self.shared, &delivery, &desk) {
            let shared = Arc::clone(&self.shared);
            self.asking
                .push(Box::pin(admit::admit(shared, delivery, desk)));
        } else {
            self.begin(delivery, desk, None).await;
        }
        true
    }

    /// Everybody asked about a start has answered.
    async fn admitted(&mut self, (admission, delivery, desk): Admitted) {
        match admission {
            // Meanwhile its partition may have had to go.
            Admission::Start(_) if desk.closing.is_cancelled() => {
                self.window.put_back(delivery, Duration::ZERO);
            }
            Admission::Start(state) => self.begin(delivery, desk, state).await,
            Admission::SetAside => {
                let verdict = conclude::session_set_aside();
                self.set_aside(delivery, verdict, &desk);
            }
            Admission::Waits(after) => self.wait(delivery, after, &desk),
            Admission::Duplicate => {
                self.shared.work.duplicates.increment(1);
                self.set_aside(delivery, Verdict::Complete, &desk);
            }
            Admission::Stale => {
                self.shared.dedup.forget(&delivery.receipt);
                self.shared.work.locks_lost.increment(1);
                desk.tell(delivery.receipt, Settled::Stale);
                self.shared.intake.done(&desk, 1);
            }
            Admission::Refused(error) => {
                tracing::warn!(queue = %self.shared.work.queue, %error, "a message could not start");
                self.wait(delivery, Duration::ZERO, &desk);
            }
        }
    }

    /// It could not start now, at no cost to its attempts: in a session it keeps its place.
    fn wait(&mut self, delivery: Delivery, after: Duration, desk: &Arc<Desk>) {
        match desk.tenure {
            Some(_) => self.window.put_back(delivery, after),
            None => self.set_aside(delivery, Verdict::Release { after }, desk),
        }
    }

    /// Starts the handler and polls it once in place. `loaded` is the state of its session, where that
    /// was asked for.
    async fn begin(&mut self, delivery: Delivery, desk: Arc<Desk>, loaded: Option<Option<Bytes>>) {
        let shared = &self.shared;
        if Flaw::MarkBeforeEffect.on() {
            let noting = shared
                .dedup
                .note_reply(&delivery.receipt, Bytes::new(), None);
            let _ = noting.await;
        }
        let timing = shared.dispatch.timing(&delivery.envelope.kind);
        let limit = timing.limit.unwrap_or(shared.settings.time_limit);
        let begun = shared.client.clock().monotonic();
        let span = shared.work.process_span(&delivery);
        let start = Start {
            envelope: delivery.envelope,
            attempt: delivery.attempt,
            max_attempts: shared.settings.max_attempts,
            deadline: begun + limit,
            place: desk.tenure.clone().map(|tenure| Place { tenure, loaded }),
        };
        let cx = self.spare.context(&shared.client, start);
        let handling = self.shared.dispatch.call(cx.clone());
        let about = About {
            cx,
            receipt: delivery.receipt,
            desk,
            state: None,
            dedup: (self.shared.dedup.is_on()).then(|| Arc::clone(&self.shared.dedup)),
            begun,
        };
        let mut attempt = Attempt::new(about, handling, timing, limit, span);
        self.started += 1;
        if let std::task::Poll::Ready((about, ending)) = poll!(&mut attempt) {
            self.end(about, ending);
        } else if let (Some(receipt), Some(cx)) = (attempt.receipt(), attempt.context()) {
            self.shared.work.running.add(1);
            self.running.insert(receipt, cx.clone());
            self.parked.push(attempt);
        }
    }

    /// A start has ended: from here on it is a settlement.
    fn end(&mut self, about: About, ending: Ending) {
        let About {
            mut cx,
            receipt,
            desk,
            begun,
            state,
            ..
        } = about;
        let (shared, work) = (&self.shared, &self.shared.work);
        if self.running.remove(&receipt).is_some() {
            work.running.add(-1);
        }
        self.window.ended(&receipt);
        work.process
            .record(shared.client.clock().monotonic().saturating_sub(begun));
        match &ending {
            Ending::Failed(..) => work.errors.increment(1),
            Ending::Panicked(_) => work.panics.increment(1),
            Ending::TimeLimit(_) => work.time_limits.increment(1),
            _ => {}
        }
        let attempt = cx.attempt();
        let verdict = conclude::verdict(ending, &cx, &shared.settings);
        // Taken in any case: a kept context must not keep a body.
        let envelope = cx.take_envelope();
        match verdict {
            Verdict::Complete => {
                let mut complete = Settlement::complete(receipt, attempt);
                complete.state = state;
                self.ended.push((desk, complete));
            }
            // Nothing overtakes it in its session, so it waits where it is.
            Verdict::Retry { after } if desk.tenure.is_some() => {
                work.settled(&verdict).increment(1);
                self.window.again(receipt, envelope, attempt + 1, after);
            }
            verdict => {
                let settlement = Settlement::new(receipt, attempt, verdict, envelope);
                self.ended.push((desk, settlement));
            }
        }
        self.spare.keep(cx);
    }

    /// A delivery that never starts.
    fn set_aside(&mut self, delivery: Delivery, verdict: Verdict, desk: &Arc<Desk>) {
        let Delivery {
            receipt,
            mut attempt,
            envelope,
            ..
        } = delivery;
        if let Verdict::DeadLetter { .. } = verdict {
            // A dead letter tells how often a handler had started, and this time none has.
            attempt = attempt.saturating_sub(1);
        }
        self.window.ended(&receipt);
        let settlement = Settlement::new(receipt, attempt, verdict, envelope);
        self.ended.push((Arc::clone(desk), settlement));
    }

    fn lose(&self, lost: &[Receipt]) {
        let running = lost.iter().filter_map(|receipt| self.running.get(receipt));
        for cx in running.filter(|_| !Flaw::LostLockIgnored.on()) {
            self.shared.work.locks_lost.increment(1);
            cx.cancel();
        }
    }

    /// Sends on what has ended, one batch for each desk, and gets each under way at once.
    async fn hand_over(&mut self) {
        let started = std::mem::take(&mut self.started);
        if started > 0 {
            self.shared.work.started.increment(started);
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.append(&mut self.window.unstarted);
        while let Some((desk, first)) = ended.pop() {
            let mut batch = Vec::with_capacity(ended.len() + 1);
            batch.push(first);
            let mut others = Vec::new();
            for (of, settlement) in ended.drain(..).rev() {
                if Arc::ptr_eq(&of, &desk) {
                    batch.push(settlement);
                } else {
                    others.push((of, settlement));
                }
            }
            ended.append(&mut others);
            let mut settling: BoxFuture<'static, ()> =
                Box::pin(settle(Arc::clone(&self.shared), desk, batch));
            if poll!(&mut settling).is_pending() {
                self.settling.push(settling);
            }
        }
        // Empty again, with the room it has grown to.
        self.ended = ended;
        while let Some(Some(())) = self.settling.next().now_or_never() {}
    }

    /// The stop deadline has passed: cancels and drops what still runs, and settles it as far as
    /// the grace allows.
    async fn give_up(mut self) {
        self.window.close_all();
        for attempt in std::mem::take(&mut self.parked) {
            match attempt.abandon() {
                Some((about, ending)) => self.end(about, ending),
                None => self.shared.work.running.add(-1),
            }
        }
        self.hand_over().await;
        let settled = async { while self.settling.next().await.is_some() {} };
        let _ = tokio::time::timeout(super::handle::GRACE, settled).await;
    }
}
