//! One worker among the live ones of a queue with sessions.

mod owned;
mod presence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use lapin::types::FieldTable;
use longshore_core::{
    Claim, Declare, Error, ErrorKind, Membership, Ownership, Part, Result, Topology,
    chaos::CrashPoint,
};
use tokio::sync::oneshot;

use self::{owned::Owned, presence::Presence};
use crate::{
    book::Book,
    error::closed,
    estate::Estate,
    held::stale,
    lock::Lock,
    names,
    objects::{declare_queue, look},
    prepared::is_missing,
    session::Session,
    tenure::{Place, Register, Tenure},
};

/// A worker of a queue with sessions. What it owns lives on the connection that consumes and ends
/// with that at the latest.
pub(crate) struct AmqpMembership {
    estate: Arc<Estate>,
    register: Arc<Register>,
    queue: Arc<Topology>,
    declare: Declare,
    owned: Arc<Owned>,
    presence: Presence,
}

/// Tells ownerships apart that have no token of their own.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl AmqpMembership {
    pub(crate) async fn join(
        estate: &Arc<Estate>,
        register: &Arc<Register>,
        queue: &Arc<Topology>,
        declare: Declare,
    ) -> Result<Self> {
        if queue.partitions == 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the queue \"{}\" has no sessions to share", queue.queue),
            ));
        }
        let owned = Arc::new(Owned::default());
        Ok(Self {
            presence: Presence::begin(estate, queue, declare, &owned).await?,
            estate: estate.clone(),
            register: register.clone(),
            queue: queue.clone(),
            declare,
            owned,
        })
    }

    fn partition(&self, index: u16) -> Result<String> {
        let of = self.queue.partitions;
        names::part(&self.queue, Part::Partition { index, of })
    }
}

#[async_trait]
impl Membership for AmqpMembership {
    async fn live(&self) -> Result<usize> {
        let session = self.presence.session().await?;
        let members = names::members(&self.queue);
        let none = FieldTable::default();
        let figures = declare_queue(&session, &members, none, Declare::Verify).await?;
        // Two connections of this client may have taken different ways to the broker.
        Ok(usize::try_from(figures.consumers)
            .unwrap_or(usize::MAX)
            .max(1))
    }

    async fn free(&self) -> Result<Vec<u16>> {
        let session = self.estate.session().await?;
        let others = |index: &u16| !self.owned.has(Claim::Partition(*index));
        let indices: Vec<u16> = (0..self.queue.partitions).filter(others).collect();
        let names = indices.iter().map(|index| self.partition(*index));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        let figures = match look(&session, &names).await {
            Err(error) if is_missing(&error) => {
                self.estate.declare_again(&self.queue, self.declare).await?;
                look(&session, &names).await?
            }
            figures => figures?,
        };
        let free = indices.into_iter().zip(figures);
        let free = free.filter(|(_, figures)| figures.consumers == 0);
        Ok(free.map(|(index, _)| index).collect())
    }

    async fn acquire(&self, claim: Claim) -> Result<Option<Ownership>> {
        let name = names::claim(&self.queue, claim)?;
        let Some(place) = self.register.reserve(&name) else {
            return Ok(None);
        };
        let queue = match claim {
            Claim::Partition(index) => Some(self.partition(index)?),
            Claim::Forwarder => Some(self.queue.queue.to_string()),
            Claim::Seat(_) => None,
        };
        let acquisition = Acquisition {
            claim,
            queue,
            topology: self.queue.clone(),
            declare: self.declare,
            estate: self.estate.clone(),
            owned: self.owned.clone(),
        };
        // On a task of its own: what is half taken must not be left lying about.
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let acquired = acquisition.run(place).await;
            if let Err(Ok(Some(tenure))) = answer.send(acquired) {
                tenure.abandon();
            }
        });
        let tenure = answered.await.unwrap_or_else(|_| Err(closed()))?;
        Ok(tenure.map(|tenure| tenure.ownership))
    }

    async fn release(&self, ownership: Ownership) -> Result<()> {
        match self.owned.remove(ownership) {
            Some(tenure) => tenure.give_back().await,
            None => Err(stale()),
        }
    }

    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Ownership> {
        self.owned.losses.poll(cx)
    }
}

impl Drop for AmqpMembership {
    fn drop(&mut self) {
        self.owned.abandon();
    }
}

/// What it takes to become the owner of one claim.
struct Acquisition {
    claim: Claim,
    /// What is consumed under it.
    queue: Option<String>,
    topology: Arc<Topology>,
    declare: Declare,
    estate: Arc<Estate>,
    owned: Arc<Owned>,
}

impl Acquisition {
    async fn run(self, place: Place) -> Result<Option<Arc<Tenure>>> {
        let session = self.estate.session().await?;
        // A lock is tried only where nobody has it, as far as can be seen: a foreign one costs a channel.
        let taken = match &self.queue {
            Some(queue) => self.is_consumed(&session, queue).await?,
            None => self.estate.lookout.is_taken(place.name()).await?,
        };
        if taken {
            return Ok(None);
        }
        let Some(lock) = Lock::take(&session, place.name()).await? else {
            return Ok(None);
        };
        CrashPoint::LockTaken.reached();
        let opened = match (self.claim, &self.queue) {
            (Claim::Partition(_), Some(queue)) => self.open(&session, queue).await.map(Some),
            _ => Ok(None),
        };
        let book = match opened {
            Ok(book) => book,
            Err(error) => {
                lock.give_back().await;
                return Err(error);
            }
        };
        let token = match (&book, self.claim) {
            (Some(book), _) => book.token,
            (None, Claim::Seat(_)) => 0,
            (None, _) => NUMBERS.fetch_add(1, Ordering::Relaxed),
        };
        let ownership = Ownership {
            claim: self.claim,
            token,
        };
        let losses = self.owned.losses.clone();
        let tenure = Tenure::begin(ownership, session, self.queue, book, (lock, place), losses);
        self.owned.add(tenure.clone());
        // Whoever watches over the connection may have looked a moment before.
        if !tenure.session.is_live() && tenure.abandon() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the connection was lost while something was being acquired on it",
            ));
        }
        Ok(Some(tenure))
    }

    async fn is_consumed(&self, session: &Arc<Session>, queue: &String) -> Result<bool> {
        let queue = std::slice::from_ref(queue);
        let figures = match look(session, queue).await {
            Err(error) if is_missing(&error) => {
                let estate = &self.estate;
                estate.declare_again(&self.topology, self.declare).await?;
                look(session, queue).await?
            }
            figures => figures?,
        };
        Ok(figures.iter().any(|figures| figures.consumers > 0))
    }

    async fn open(&self, session: &Arc<Session>, queue: &str) -> Result<Arc<Book>> {
        let marker = names::marker(queue);
        match Book::open(&self.estate, session, marker.clone(), self.declare).await {
            Err(error) if is_missing(&error) => {
                let estate = &self.estate;
                estate.declare_again(&self.topology, self.declare).await?;
                Book::open(estate, session, marker, self.declare).await
            }
            opened => opened,
        }
    }
}
