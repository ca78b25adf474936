//! What this client owns of queues with sessions, and what it takes to own something.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::{Declare, Name, Ownership, Result, Topology};
use tokio::sync::watch;

use crate::{
    error::closed,
    fence,
    link::{Link, State, live},
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
    /// What was declared, or found, once.
    declared: Mutex<BTreeSet<(Name, u16, bool)>>,
}

impl Estate {
    pub(crate) fn new(
        consuming: &Link,
        publishing: Arc<Link>,
        copies: Arc<Publisher>,
        prepared: Arc<Prepared>,
        patience: Duration,
    ) -> Self {
        Self {
            consuming: consuming.watch(),
            publishing,
            copies,
            prepared,
            patience,
            declared: Mutex::default(),
        }
    }

    /// Follows the connection that consumes.
    pub(crate) fn link(&self) -> watch::Receiver<State> {
        self.consuming.clone()
    }

    /// The connection that consumes.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        live(&mut self.link(), self.patience).await
    }

    /// Makes sure that a queue with sessions is there, once for all that need it: it can have
    /// hundreds of parts.
    pub(crate) async fn declare(&self, topology: &Topology, mode: Declare) -> Result<()> {
        let known = Self::known(topology, mode);
        if self.declared().contains(&known) {
            return Ok(());
        }
        self.declare_again(topology, mode).await
    }

    /// Something of it turned out to be missing, or somebody asks.
    pub(crate) async fn declare_again(&self, topology: &Topology, mode: Declare) -> Result<()> {
        let session = self.publishing.session().await?;
        topology::declare(&session, topology, mode).await?;
        self.declared().insert(Self::known(topology, mode));
        Ok(())
    }

    fn known(topology: &Topology, mode: Declare) -> (Name, u16, bool) {
        let create = mode == Declare::Create;
        (topology.queue.clone(), topology.partitions, create)
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
        self.prepared.has(&Need::Queue(queue.to_owned())).await?;
        let answer = self.copies.publish(vec![letter]).await.pop();
        answer.unwrap_or_else(|| Err(closed()))
    }

    fn declared(&self) -> MutexGuard<'_, BTreeSet<(Name, u16, bool)>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
