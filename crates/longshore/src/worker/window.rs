//! The partitions of one driver, and what is here of them.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use longshore_core::{
    Delivery, Envelope, Part, Receipt, Settlement, Standing, Text, Verdict, chaos::Flaw,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, Sleep},
};

use super::{
    SharedRef,
    closings::Closings,
    conclude,
    desk::{Desk, Settled, Told},
    holding::{Arrivals, Arrived, Holding, Slot},
    sessions::{Held, Sessions},
};

/// The longest a message waits in its place for another attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What the keeper tells a driver about partitions.
pub(super) enum Order {
    /// Handle its sessions.
    Open(Arc<Holding>),
    /// Start nothing more of it, hand back what has not started, and tell once all is settled.
    Close(Arc<Holding>, oneshot::Sender<()>),
    /// Its source has had its time to hand over what had arrived.
    Enough(Arc<Holding>),
    /// It was lost: cancel what runs of it, and start nothing more.
    Lose(Arc<Holding>),
}

/// Where a driver is told about partitions and settlements.
#[derive(Clone)]
pub(super) struct Inbox {
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) told: Arc<Told>,
}

/// The partitions of one driver, and what is here of them. A session belongs to one driver, so that
/// nothing here is locked.
///
/// A message has its turn from its start, or from when it is asked whether it may start, until its
/// settlement is confirmed or it is put back to wait. Only then has the next of its session a turn.
pub(super) struct Window {
    shared: SharedRef,
    orders: mpsc::UnboundedReceiver<Order>,
    told: Arc<Told>,
    /// No further order will come.
    over: bool,
    arrivals: SelectAll<Arrivals>,
    open: Vec<Arc<Holding>>,
    closing: Closings,
    sessions: Sessions,
    turns: BTreeMap<Receipt, Turn>,
    timer: Pin<Box<Sleep>>,
    /// For the next start.
    slot: Option<Slot>,
    /// The right to start a message apart from others like it, asked for and granted.
    asked: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    apart: Option<OwnedSemaphorePermit>,
    /// Settled without a start.
    pub(super) unstarted: Vec<(Arc<Desk>, Settlement)>,
    /// What should not go on.
    pub(super) lost: Vec<Receipt>,
}

/// What is known of a message that has its turn, beside what its handler has.
struct Turn {
    holding: Arc<Holding>,
    part: Part,
    alone: bool,
    standing: Standing,
    /// As long as its handler may be running.
    running: Option<(Slot, Option<OwnedSemaphorePermit>)>,
}

impl Window {
    pub(super) fn new(shared: SharedRef) -> (Self, Inbox) {
        // A partition has a few orders in its life, and there are at most 256 of them.
        let (sender, orders) = mpsc::unbounded_channel();
        let inbox = Inbox {
            orders: sender,
            told: Arc::default(),
        };
        let window = Self {
            shared,
            orders,
            told: Arc::clone(&inbox.told),
            over: false,
            arrivals: SelectAll::new(),
            open: Vec::new(),
            closing: Closings::default(),
            sessions: Sessions::default(),
            turns: BTreeMap::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            slot: None,
            asked: None,
            apart: None,
            unstarted: Vec::new(),
            lost: Vec::new(),
        };
        (window, inbox)
    }

    /// Whether nothing is here and nothing will come.
    pub(super) fn is_empty(&self) -> bool {
        self.over && self.open.is_empty() && self.closing.is_empty() && self.turns.is_empty()
    }

    /// Resolves when something has changed, or when a message can start while at most `most` handlers
    /// run in all drivers together.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        let mut changed = self.settled();
        while let Poll::Ready(order) = self.orders.poll_recv(cx) {
            let Some(order) = order else {
                changed |= !std::mem::replace(&mut self.over, true);
                break;
            };
            self.obey(order);
            changed = true;
        }
        while let Poll::Ready(Some((holding, arrived))) = self.arrivals.poll_next_unpin(cx) {
            self.arrive(&holding, arrived);
            changed = true;
        }
        while let Some(due) = self.sessions.due() {
            self.timer.as_mut().reset(due);
            if self.timer.poll_unpin(cx).is_pending() {
                break;
            }
            self.sessions.wake(due);
        }
        if most == 0 || !self.may_start(cx) {
            self.slot = None;
        } else if self.slot.is_none() {
            self.slot = self.shared.holdings.slots.take(most);
        }
        match changed || self.slot.is_some() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn may_start(&mut self, cx: &mut Context<'_>) -> bool {
        if self.sessions.has_apart() && self.apart.is_none() {
            let apart = &self.shared.holdings.apart;
            let asked = self.asked.get_or_insert_with(|| {
                let asking = Arc::clone(apart).acquire_owned();
                asking.map(Result::ok).boxed()
            });
            if let Poll::Ready(permit) = asked.poll_unpin(cx) {
                (self.asked, self.apart) = (None, permit);
            }
        }
        self.sessions.has_ready() || self.apart.is_some()
    }

    /// The next message to start, with a handler slot of its own.
    pub(super) fn next(&mut self, most: usize) -> Option<(Delivery, Arc<Desk>)> {
        let slot = self.slot.take();
        let slot = slot.or_else(|| self.shared.holdings.slots.take(most))?;
        let mut apart = self.apart.take();
        let held = match &apart {
            Some(_) => self.sessions.next_apart(),
            None => None,
        };
        if held.is_none() {
            apart = None;
        }
        let Held { delivery, holding } = held.or_else(|| self.sessions.next())?;
        let turn = Turn {
            part: delivery.part,
            alone: delivery.alone,
            standing: delivery.standing,
            holding: Arc::clone(&holding),
            running: Some((slot, apart)),
        };
        self.turns.insert(delivery.receipt, turn);
        Some((delivery, Arc::clone(&holding.desk)))
    }

    /// Its handler has ended, or will not start: another may.
    pub(super) fn ended(&mut self, receipt: &Receipt) {
        if let Some(turn) = self.turns.get_mut(receipt) {
            turn.running = None;
        }
    }

    /// Lets a message that has its turn wait for its next attempt in its place.
    pub(super) fn again(
        &mut self,
        receipt: Receipt,
        envelope: Envelope,
        attempt: u32,
        after: Duration,
    ) {
        if let Some(turn) = self.turns.get(&receipt) {
            let delivery = Delivery {
                envelope,
                receipt,
                attempt,
                part: turn.part,
                suspect: false,
                alone: turn.alone,
                standing: turn.standing,
                defect: None,
            };
            self.put_back(delivery, after);
        }
    }

    /// Lets a message that has its turn wait in its place. What may not start here any more goes
    /// back to the broker, with the attempt number its next start has.
    pub(super) fn put_back(&mut self, delivery: Delivery, after: Duration) {
        let receipt = delivery.receipt;
        let Some(mut turn) = self.turns.remove(&receipt) else {
            return;
        };
        turn.running = None;
        if turn.holding.is_gone() {
            self.shared.dedup.forget(&receipt);
            self.sessions.free(&receipt);
            self.report_closed();
        } else if turn.holding.is_closing() {
            self.unstarted.push(release(delivery, &turn.holding));
            self.turns.insert(receipt, turn);
        } else {
            let holding = turn.holding;
            let at = Instant::now() + after.min(LONGEST_WAIT);
            self.sessions.put_back(Held { delivery, holding }, at);
        }
    }

    /// Takes note of what became of settlements; `true` where there was any.
    fn settled(&mut self) -> bool {
        let told = self.told.take();
        for (receipt, settled) in &told {
            let Some(turn) = self.turns.remove(receipt) else {
                continue;
            };
            self.sessions.free(receipt);
            if *settled == Settled::Stale && !turn.holding.is_gone() {
                self.fail(&turn.holding, "its lock was lost".into());
            }
        }
        if !told.is_empty() {
            self.report_closed();
        }
        !told.is_empty()
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open(holding) => {
                self.arrivals.push(Arrivals::of(Arc::clone(&holding)));
                self.open.push(holding);
            }
            Order::Close(holding, done) => self.close(holding, Some(done)),
            Order::Enough(holding) => self.handed_over(&holding),
            Order::Lose(holding) => self.drop_partition(&holding),
        }
    }

    fn arrive(&mut self, holding: &Arc<Holding>, arrived: Arrived) {
        match arrived {
            Arrived::Deliveries(deliveries) => {
                holding.desk.took(deliveries.len());
                self.shared.work.consumed.increment(deliveries.len() as u64);
                for delivery in deliveries {
                    self.shared.dedup.meet(&delivery);
                    self.line_up(delivery, holding);
                }
            }
            Arrived::Lost(receipts) => {
                let lost = self.sessions.take_lost(holding.index, &receipts);
                holding.desk.done(lost.len());
                for held in lost {
                    self.shared.dedup.forget(&held.delivery.receipt);
                }
                self.lost.extend(receipts);
            }
            Arrived::End(_) if holding.is_closing() => self.handed_over(holding),
            Arrived::End(why) => {
                let why = why.map_or_else(|| "its source ended".to_owned(), |e| e.to_string());
                self.fail(holding, why.into());
            }
        }
    }

    fn line_up(&mut self, mut delivery: Delivery, holding: &Arc<Holding>) {
        if holding.is_closing() {
            return self.unstarted.push(release(delivery, holding));
        }
        let key = delivery.envelope.key.clone().unwrap_or_default();
        if key.is_empty() {
            let missing = || Box::new(conclude::key_missing());
            delivery.defect.get_or_insert_with(missing);
        }
        let holding = Arc::clone(holding);
        self.sessions.arrive(key, Held { delivery, holding });
    }

    /// Starts nothing more of a partition, and hands back what has not started.
    fn close(&mut self, holding: Arc<Holding>, done: Option<oneshot::Sender<()>>) {
        holding.stop();
        for held in self.sessions.take_out(&holding) {
            self.unstarted.push(release(held.delivery, &holding));
        }
        self.open.retain(|open| !Arc::ptr_eq(open, &holding));
        self.closing.add(holding, done);
        self.report_closed();
    }

    /// Closes everything that is open: there is no time left.
    pub(super) fn close_all(&mut self) {
        for holding in std::mem::take(&mut self.open) {
            self.close(holding, None);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some((holding, arrived))) = self.arrivals.poll_next_unpin(&mut cx) {
            self.arrive(&holding, arrived);
        }
    }

    fn handed_over(&mut self, holding: &Arc<Holding>) {
        self.closing.handed_over(holding);
        self.report_closed();
    }

    /// A partition that nobody has closed is of no use any more.
    fn fail(&mut self, holding: &Arc<Holding>, why: Text) {
        self.drop_partition(holding);
        holding.end(why);
    }

    /// Nothing of it starts or goes on here. What is running keeps its turn until it has ended: it
    /// runs at no time twice in this process.
    fn drop_partition(&mut self, holding: &Arc<Holding>) {
        holding.drop_source();
        for held in self.sessions.take_out(holding) {
            self.shared.dedup.forget(&held.delivery.receipt);
        }
        self.open.retain(|open| !Arc::ptr_eq(open, holding));
        let of_it = self
            .turns
            .iter()
            .filter(|(_, turn)| Arc::ptr_eq(&turn.holding, holding));
        self.lost.extend(of_it.map(|(receipt, _)| *receipt));
        self.report_closed();
    }

    fn report_closed(&mut self) {
        let turns = &self.turns;
        self.closing.let_go(|holding| {
            let mut of_turns = turns.values().map(|turn| &turn.holding);
            of_turns.any(|of| Arc::ptr_eq(of, holding))
        });
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        for holding in &self.open {
            holding.drop_source();
        }
    }
}

/// It keeps its place, and the number its next start has.
fn release(delivery: Delivery, holding: &Holding) -> (Arc<Desk>, Settlement) {
    let Delivery {
        receipt,
        attempt,
        envelope,
        ..
    } = delivery;
    let verdict = match Flaw::StopCompletes.on() {
        false => Verdict::Release {
            after: Duration::ZERO,
        },
        true => Verdict::Complete,
    };
    let settlement = Settlement::new(receipt, attempt, verdict, envelope);
    (Arc::clone(&holding.desk), settlement)
}
