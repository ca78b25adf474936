//! Keeps a worker its share of the partitions of a queue with sessions.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use longshore_core::{
    Claim, Error, ErrorKind, Membership, Ownership, Result, Text, Topology, printable,
};
use tokio::time::Instant;

use super::{
    SharedRef,
    balance::{self, Move, View},
    claim::{End, Life},
    grip::Grip,
    handle::{Control, State},
    lanes::{FIRST_PAUSE, LONGEST_PAUSE},
    notice::Reader,
    seats,
    trouble::Of,
    window::Inbox,
};

/// How often it is looked how many workers live and what is free.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps a worker its share of the partitions of a queue with sessions.
pub(super) struct Partitions {
    shared: SharedRef,
    topology: Arc<Topology>,
    /// One for each driver; a partition belongs to the one its index falls to.
    drivers: Vec<Inbox>,
    membership: Option<Arc<dyn Membership>>,
    /// What is asked and what is held, each a future of its own.
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    grips: BTreeMap<Claim, Grip>,
    seat: Option<Ownership>,
    /// No seat was to be had since the last look.
    seats_taken: bool,
    live: usize,
    /// As of the last look, without those that were tried since.
    free: VecDeque<u16>,
    /// Where to begin among what is free: two workers should not try the same.
    begin: usize,
    asking: Asking,
    look_at: Instant,
    pause: Duration,
    /// Nothing is taken before that.
    again_at: Instant,
}

/// What is being asked; one thing of a kind at a time.
#[derive(Debug, Default)]
struct Asking {
    membership: bool,
    look: bool,
    seat: bool,
}

/// What was asked, or how what was held has ended.
enum Step {
    Joined(Result<Arc<dyn Membership>>),
    Looked(Result<(usize, Vec<u16>)>),
    Sat(Result<Option<Ownership>>),
    Stood,
    Ended(Claim, Result<End>),
}

impl Partitions {
    pub(super) fn new(shared: SharedRef, topology: Arc<Topology>, drivers: Vec<Inbox>) -> Self {
        let begin = shared.client.ids().text();
        let begin = longshore_core::partition_of(&begin, 256);
        Self {
            shared,
            topology,
            drivers,
            membership: None,
            steps: FuturesUnordered::new(),
            grips: BTreeMap::new(),
            seat: None,
            seats_taken: false,
            live: 1,
            free: VecDeque::new(),
            begin: usize::from(begin),
            asking: Asking::default(),
            look_at: Instant::now(),
            pause: FIRST_PAUSE,
            again_at: Instant::now(),
        }
    }

    /// Becomes a live worker.
    pub(super) async fn join(&mut self) -> Result<()> {
        self.membership = Some(join(&self.shared, &self.topology).await?);
        Ok(())
    }

    /// Owns its share while the worker runs and `may` says so, and nothing otherwise. Cancel-safe.
    pub(super) async fn keep(&mut self, mut told: Reader<Control>, mut may: Reader<bool>) {
        loop {
            let wanted = told.see().state == State::Running && may.see();
            self.want(wanted);
            let (look_at, waits) = (self.look_at, wanted && !self.asking.look);
            tokio::select! {
                biased;
                changed = told.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = may.changed() => {}
                () = self.step() => {}
                () = tokio::time::sleep_until(look_at), if waits => {}
            }
        }
    }

    /// Gives everything up and leaves.
    pub(super) async fn stop(mut self) {
        loop {
            self.want(false);
            if self.membership.is_none() && self.steps.is_empty() {
                return;
            }
            self.step().await;
        }
    }

    /// Gets under way what is due.
    fn want(&mut self, wanted: bool) {
        if !wanted {
            return self.leave();
        }
        if self.look_at > Instant::now() {
            return;
        }
        match &self.membership {
            None if !self.asking.membership => {
                self.asking.membership = true;
                let (shared, topology) = (Arc::clone(&self.shared), Arc::clone(&self.topology));
                let joining = async move { Step::Joined(join(&shared, &topology).await) };
                self.steps.push(joining.boxed());
            }
            Some(membership) if !self.asking.look => {
                self.asking.look = true;
                let membership = Arc::clone(membership);
                let looking = async move {
                    let looked = async { Ok((membership.live().await?, membership.free().await?)) };
                    Step::Looked(looked.await)
                };
                self.steps.push(looking.boxed());
            }
            _ => {}
        }
    }

    /// Gives everything up, the seat once nothing else is held, and leaves then.
    fn leave(&mut self) {
        for grip in self.grips.values() {
            grip.leave.cancel();
        }
        if !self.steps.is_empty() {
            return;
        }
        match (&self.membership, self.seat.take()) {
            (Some(membership), Some(seat)) => {
                let standing = seats::stand(Arc::clone(membership), seat);
                self.steps.push(standing.map(|()| Step::Stood).boxed());
            }
            _ => self.membership = None,
        }
        (self.look_at, self.again_at) = (Instant::now(), Instant::now());
        self.shared.trouble.set(Of::Membership, None);
    }

    /// One thing that happens.
    async fn step(&mut self) {
        let membership = self.membership.clone();
        let lost = poll_fn(|cx| match &membership {
            Some(membership) => membership.poll_lost(cx),
            None => std::task::Poll::Pending,
        });
        tokio::select! {
            biased;
            lost = lost => self.lose(lost),
            Some(step) = self.steps.next(), if !self.steps.is_empty() => self.done(step),
        }
    }

    fn lose(&mut self, lost: Ownership) {
        if self.seat == Some(lost) {
            self.seat = None;
        }
        if let Some(grip) = self.grips.get(&lost.claim) {
            grip.lose(lost.token);
        }
    }

    fn done(&mut self, step: Step) {
        match step {
            Step::Joined(Ok(membership)) => {
                self.asking.membership = false;
                self.membership = Some(membership);
                self.look_at = Instant::now();
            }
            Step::Joined(Err(error)) => {
                self.asking.membership = false;
                self.look_at = self.failed(&error);
            }
            Step::Looked(Ok((live, free))) => {
                self.asking.look = false;
                self.look_at = Instant::now() + LOOK;
                self.live = live;
                self.seats_taken = false;
                self.free = free.into();
                let begin = self.begin.checked_rem(self.free.len()).unwrap_or_default();
                self.free.rotate_left(begin);
                if self.again_at + LONGEST_PAUSE < Instant::now() {
                    self.pause = FIRST_PAUSE;
                }
                if self.again_at <= Instant::now() {
                    self.shared.trouble.set(Of::Membership, None);
                    self.take(Claim::Forwarder);
                }
                self.balance();
            }
            Step::Looked(Err(error)) => {
                self.asking.look = false;
                self.look_at = self.failed(&error);
                if self.grips.is_empty() {
                    // It may be the membership itself that is of no use any more.
                    (self.membership, self.seat) = (None, None);
                }
            }
            Step::Sat(sat) => {
                self.asking.seat = false;
                match sat {
                    Ok(seat) => {
                        self.seats_taken = seat.is_none();
                        self.seat = seat;
                        self.balance();
                    }
                    Err(error) => {
                        self.failed(&error);
                    }
                }
            }
            Step::Stood => self.asking.seat = false,
            Step::Ended(claim, end) => {
                self.grips.remove(&claim);
                match (claim, end) {
                    (_, Err(error)) => {
                        self.failed(&error);
                    }
                    (Claim::Partition(index), Ok(End::Lost)) => {
                        self.free.push_back(index);
                        self.balance();
                    }
                    (_, Ok(_)) => {}
                }
            }
        }
    }

    /// Takes note of a failure; answers when to try again.
    fn failed(&mut self, error: &Error) -> Instant {
        let now = Instant::now();
        let trouble: Text = match error.kind() {
            ErrorKind::Closed => Text::from_static("the client is closed"),
            _ => printable(&error.to_string(), 256).into(),
        };
        // Many that fail at a time are one failure.
        if self.again_at <= now {
            tracing::warn!(queue = %self.topology.queue, %error, "cannot take part in the queue");
            self.again_at = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.shared.trouble.set(Of::Membership, Some(trouble));
        self.again_at
    }

    /// Moves towards an even spread.
    fn balance(&mut self) {
        loop {
            let owned: Vec<u16> = self.owned().collect();
            let next = balance::next(View {
                partitions: usize::from(self.topology.partitions),
                live: self.live,
                owned: owned.len(),
                seat: self.seat.and_then(|seat| match seat.claim {
                    Claim::Seat(seat) => Some(seat),
                    _ => None,
                }),
                seats_taken: self.seats_taken,
                free: match self.again_at <= Instant::now() {
                    true => self.free.len(),
                    false => 0,
                },
            });
            match next {
                Move::Acquire(partitions) => {
                    let most = partitions.min(self.free.len());
                    for index in self.free.drain(..most).collect::<Vec<_>>() {
                        self.take(Claim::Partition(index));
                    }
                }
                Move::GiveUp(partitions) => {
                    let mut owned = owned;
                    owned.sort_by_key(|index| self.shared.holdings.unsettled(*index));
                    for index in owned.into_iter().take(partitions) {
                        if let Some(grip) = self.grips.get(&Claim::Partition(index)) {
                            grip.leave.cancel();
                        }
                    }
                }
                Move::Sit(seats) => return self.sit(seats),
                Move::Stand => return self.stand(),
                Move::Rest => return,
            }
        }
    }

    /// Partitions that are held and not being given up.
    fn owned(&self) -> impl Iterator<Item = u16> {
        let held = self
            .grips
            .iter()
            .filter(|(_, grip)| !grip.leave.is_cancelled());
        held.filter_map(|(claim, _)| match claim {
            Claim::Partition(index) => Some(*index),
            _ => None,
        })
    }

    /// Begins the life of a claim.
    fn take(&mut self, claim: Claim) {
        let Some(membership) = self.membership.clone() else {
            return;
        };
        if self.grips.contains_key(&claim) {
            return;
        }
        let grip = Grip::default();
        let life = Life {
            shared: Arc::clone(&self.shared),
            topology: Arc::clone(&self.topology),
            membership,
            grip: grip.clone(),
        };
        let life = match claim {
            Claim::Partition(index) => {
                let driver = usize::from(index) % self.drivers.len().max(1);
                let Some(driver) = self.drivers.get(driver).cloned() else {
                    return;
                };
                life.partition(index, driver).boxed()
            }
            _ => life.forwarder().boxed(),
        };
        self.grips.insert(claim, grip);
        self.steps
            .push(life.map(move |end| Step::Ended(claim, end)).boxed());
    }

    fn sit(&mut self, seats: u16) {
        let Some(membership) = self.membership.clone() else {
            return;
        };
        if std::mem::replace(&mut self.asking.seat, true) {
            return;
        }
        // Others next time.
        self.begin = self.begin.wrapping_add(7);
        let sitting = seats::sit(membership, seats, self.begin);
        self.steps.push(sitting.map(Step::Sat).boxed());
    }

    fn stand(&mut self) {
        if let (Some(membership), Some(seat)) = (self.membership.clone(), self.seat.take()) {
            self.asking.seat = true;
            let standing = seats::stand(membership, seat);
            self.steps.push(standing.map(|()| Step::Stood).boxed());
        }
    }
}

async fn join(shared: &SharedRef, topology: &Arc<Topology>) -> Result<Arc<dyn Membership>> {
    let client = &shared.client;
    let joined = client
        .transport()
        .join(topology, client.declare_mode(), shared.settings.lock);
    Ok(Arc::from(joined.await?))
}
