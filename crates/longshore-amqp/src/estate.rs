//! What this client owns of queues with sessions, and what it takes to own something.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use longshore_core::{Clock, Declare, Error, ErrorKind, Ownership, Result, Topology};
use tokio::sync::watch;

use crate::{
    error::closed,
    fence,
    link::{Link, State, live},
    lookout::Lookout,
    marker::{self, Marker},
    objects::declare_queue,
    prepared::{Need, Prepared, is_missing},
    publisher::{Letter, Publisher},
    session::Session,
    topology,
};

/// One of each client.
pub(crate) struct Estate {
    /// Locks live here, and everything that is consumed under them.
    consuming: watch::Receiver<State>,
    publishing: Arc<Link>,
    copies: Arc<Publisher>,
    prepared: Arc<Prepared>,
    patience: Duration,
    clock: Arc<dyn Clock>,
    /// Where it is looked whether somebody else has a lock.
    pub(crate) lookout: Arc<Lookout>,
    /// What was declared, or found, once.
    declared: Mutex<Vec<(Topology, Declare)>>,
}

impl Estate {
    pub(crate) fn new(
        consuming: &Link,
        publishing: Arc<Link>,
        copies: Arc<Publisher>,
        prepared: Arc<Prepared>,
        patience: Duration,
        clock: Arc<dyn Clock>,
        lookout: Arc<Lookout>,
    ) -> Self {
        Self {
            consuming: consuming.watch(),
            publishing,
            copies,
            prepared,
            patience,
            clock,
            lookout,
            declared: Mutex::default(),
        }
    }

    /// Follows the connection that consumes.
    pub(crate) fn link(&self) -> watch::Receiver<State> {
        self.consuming.clone()
    }

    /// Ms since 1970.
    pub(crate) fn now(&self) -> u64 {
        let since = self.clock.wall().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
    }

    /// The connection that consumes.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        live(&mut self.link(), self.patience).await
    }

    /// Makes sure that a queue with sessions is there, once for all that need it: it can have
    /// hundreds of parts.
    pub(crate) async fn declare(&self, topology: &Topology, mode: Declare) -> Result<()> {
        let is_it = |(known, how): &(Topology, Declare)| known == topology && *how == mode;
        if self.declared().iter().any(is_it) {
            return Ok(());
        }
        self.declare_again(topology, mode).await?;
        self.declared().push((topology.clone(), mode));
        Ok(())
    }

    /// Something of it turned out to be missing, or somebody asks.
    pub(crate) async fn declare_again(&self, topology: &Topology, mode: Declare) -> Result<()> {
        let session = self.publishing.session().await?;
        topology::declare(&session, topology, mode).await
    }

    /// Publishes a marker and waits for its confirm.
    pub(crate) async fn write(&self, queue: &str, marker: &Marker, mode: Declare) -> Result<()> {
        match self.write_once(queue, marker).await {
            Err(error) if is_missing(&error) && mode == Declare::Create => {
                let session = self.publishing.session().await?;
                declare_queue(&session, queue, marker::arguments(), mode).await?;
                self.write_once(queue, marker).await
            }
            answer => answer,
        }
    }

    async fn write_once(&self, queue: &str, marker: &Marker) -> Result<()> {
        self.post(queue, marker.letter(queue)?).await
    }

    /// Makes sure that a queue has a leader, and that it knows who consumes.
    pub(crate) async fn fence(&self, queue: &str, ownership: Ownership) -> Result<()> {
        self.post(queue, fence::letter(queue, ownership)?).await
    }

    async fn post(&self, queue: &str, letter: Letter) -> Result<()> {
        if let State::Up(session) = &*self.publishing.watch().borrow()
            && *session.blocked().borrow()
        {
            let why = "the broker takes no messages for want of memory or disk";
            return Err(Error::new(ErrorKind::Full, why));
        }
        self.prepared.has(&Need::Queue(queue.to_owned())).await?;
        let answer = self.copies.publish(vec![letter]).await.pop();
        answer.unwrap_or_else(|| Err(closed()))
    }

    fn declared(&self) -> MutexGuard<'_, Vec<(Topology, Declare)>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
