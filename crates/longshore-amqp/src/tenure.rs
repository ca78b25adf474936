//! One ownership this client has, from its lock to the end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use lapin::Channel;
use longshore_core::{
    Claim, Error, ErrorKind, Ownership, Part, Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    book::Book,
    held::stale,
    lock::Lock,
    names,
    objects::look,
    plan::Plan,
    session::{SETUP, Session},
};

/// The right to one claim. It ends once: given back, lost, or dropped with its membership.
pub(crate) struct Tenure {
    pub(crate) ownership: Ownership,
    /// The connection the lock belongs to; whatever is consumed under it is consumed there.
    pub(crate) session: Arc<Session>,
    /// What is consumed, if anything.
    pub(crate) queue: Option<String>,
    /// Of a partition.
    pub(crate) book: Option<Arc<Book>>,
    over: watch::Sender<bool>,
    rest: Mutex<Rest>,
    losses: Arc<Losses>,
    runtime: Handle,
}

/// What the end has to put away.
struct Rest {
    channel: Option<Channel>,
    /// The lock before the place: this client must not take it again while it is being given back.
    held: Option<(Lock, Place)>,
}

/// How long a final marker may take. Without it the next owner suspects what this one held.
const PARTING: Duration = Duration::from_secs(3);
const GLANCE: Duration = Duration::from_millis(5);

impl Tenure {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn begin(
        ownership: Ownership,
        session: Arc<Session>,
        queue: Option<String>,
        book: Option<Arc<Book>>,
        (lock, place): (Lock, Place),
        losses: Arc<Losses>,
    ) -> Arc<Self> {
        let tenure = Arc::new(Self {
            ownership,
            session,
            queue,
            book,
            over: watch::Sender::new(false),
            rest: Mutex::new(Rest {
                channel: None,
                held: None,
            }),
            losses,
            runtime: Handle::current(),
        });
        let mut rest = tenure.rest();
        place.fill(tenure.clone());
        rest.held = Some((lock, place));
        drop(rest);
        tenure
    }

    pub(crate) fn is_over(&self) -> bool {
        self.has_ended() || !self.session.is_live()
    }

    /// Whether its end is known, and was told where somebody must be told.
    pub(crate) fn has_ended(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until it is over by what this client knows.
    pub(crate) async fn until_over(&self) {
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Consumes on this channel from now on, instead of an earlier one, which has ended.
    ///
    /// # Errors
    /// [`Stale`](longshore_core::ErrorKind::Stale).
    pub(crate) fn consume_on(&self, channel: Channel) -> Result<()> {
        let mut rest = self.rest();
        if self.is_over() {
            return Err(stale());
        }
        rest.channel = Some(channel);
        Ok(())
    }

    /// Waits until nobody consumes its queue: what a closed channel held returns a moment after, and
    /// whoever subscribes before gets it behind what is new. Not for ever: whether nobody does.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub(crate) async fn until_idle(&self) -> Result<bool> {
        let channel = self.rest().channel.take();
        if let Some(channel) = channel {
            close(channel).await;
        }
        let Some(queue) = &self.queue else {
            return Ok(true);
        };
        let until = Instant::now() + SETUP;
        loop {
            let figures = look(&self.session, std::slice::from_ref(queue)).await?;
            if figures.iter().all(|figures| figures.consumers == 0) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(GLANCE).await;
        }
    }

    /// Gives it back, and what is held with it.
    ///
    /// # Errors
    /// [`Stale`](longshore_core::ErrorKind::Stale): it was lost before.
    pub(crate) async fn give_back(self: &Arc<Self>) -> Result<()> {
        if self.is_over() {
            // Its connection may have died a moment ago: nobody else puts away what is given back, and its
            // name would stay taken.
            self.abandon();
            return Err(stale());
        }
        if self.over.send_replace(true) {
            return Err(stale());
        }
        let tenure = self.clone();
        let given = self.runtime.spawn(async move {
            if let Some(book) = &tenure.book {
                match timeout(PARTING, book.end()).await {
                    Ok(Ok(())) => CrashPoint::LastMarkerWritten.reached(),
                    failed => {
                        let queue = &tenure.queue;
                        let error = failed.ok().and_then(Result::err);
                        tracing::warn!(?queue, ?error, "the last marker could not be written");
                    }
                }
            }
            tenure.put_away().await;
        });
        let _ = given.await;
        Ok(())
    }

    /// It is lost, and somebody must be told. Whatever is left of it is put away.
    pub(crate) fn lose(self: &Arc<Self>) {
        if self.abandon() && !Flaw::LostLockIgnored.on() {
            self.losses.add(self.ownership);
        }
    }

    /// Gives it up without a word, as the death of the process would. Whether it was not over yet.
    pub(crate) fn abandon(self: &Arc<Self>) -> bool {
        let first = !self.over.send_replace(true);
        if first {
            let tenure = self.clone();
            self.runtime.spawn(async move { tenure.put_away().await });
        }
        first
    }

    /// The channel first: the lock guards what it holds.
    async fn put_away(&self) {
        let held = self.rest().held.take();
        let Some((lock, place)) = held else { return };
        place.empty();
        if self.session.is_live() {
            // The next owner waits for the same, on its own.
            let _ = self.until_idle().await;
            lock.give_back().await;
        }
        drop(place);
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the broker has closed a channel. One that is closed already is none.
async fn close(channel: Channel) {
    let _ = timeout(SETUP, channel.close(200, "done".into())).await;
}

/// Ownerships one membership has lost.
#[derive(Default)]
pub(crate) struct Losses {
    lost: Mutex<VecDeque<Ownership>>,
    waker: AtomicWaker,
}

impl Losses {
    fn add(&self, ownership: Ownership) {
        self.lost().push_back(ownership);
        self.waker.wake();
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Ownership> {
        self.waker.register(cx.waker());
        match self.lost().pop_front() {
            Some(ownership) => Poll::Ready(ownership),
            None => Poll::Pending,
        }
    }

    fn lost(&self) -> MutexGuard<'_, VecDeque<Ownership>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this client owns, by lock. A lock keeps other connections out, this keeps out the workers of
/// this client.
#[derive(Default)]
pub(crate) struct Register(Mutex<BTreeMap<String, Option<Arc<Tenure>>>>);

/// A name nobody else of this client can take while this lives.
pub(crate) struct Place {
    register: Arc<Register>,
    name: String,
}

impl Register {
    /// Keeps the place of a lock for one of this client; `None`: somebody has it.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str) -> Option<Place> {
        let mut tenures = self.tenures();
        if tenures.contains_key(name) {
            return None;
        }
        tenures.insert(name.to_owned(), None);
        Some(Place {
            register: self.clone(),
            name: name.to_owned(),
        })
    }

    /// What gives this client the right to consume a part of a queue with sessions.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for no claim to it, [`ErrorKind::Stale`] for one that is lost.
    pub(crate) fn right_to(
        &self,
        plan: &Plan,
        ownership: Option<Ownership>,
    ) -> Result<Arc<Tenure>> {
        let is_for = |ownership: &Ownership| match (plan.part, ownership.claim) {
            (Part::Partition { index, of }, Claim::Partition(owned)) => {
                index == owned && of == plan.topology.partitions
            }
            (Part::Lane(0), Claim::Forwarder) => true,
            _ => false,
        };
        let ownership = ownership.filter(is_for).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("\"{}\" is consumed under the claim to it alone", plan.lane),
            )
        })?;
        let name = names::claim(&plan.topology, ownership.claim)?;
        let tenures = self.tenures();
        let tenure = tenures.get(&name).and_then(Option::as_ref);
        let tenure = tenure.filter(|tenure| tenure.ownership == ownership && !tenure.is_over());
        tenure.cloned().ok_or_else(stale)
    }

    fn tenures(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<Tenure>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn fill(&self, tenure: Arc<Tenure>) {
        self.register
            .tenures()
            .insert(self.name.clone(), Some(tenure));
    }

    /// Nobody is to find it any more; the name stays taken.
    pub(crate) fn empty(&self) {
        self.register.tenures().insert(self.name.clone(), None);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.register.tenures().remove(&self.name);
    }
}
