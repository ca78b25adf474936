//! What this client owns of queues with sessions, and what it takes to own something.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::{Claim, Declare, Error, ErrorKind, Name, Ownership, Part, Result, Topology};
use tokio::sync::watch;

use crate::{
    error::closed,
    fence,
    held::stale,
    link::{Link, State, live},
    marker::{self, Marker},
    names,
    objects::declare_queue,
    plan::Plan,
    prepared::{Need, Prepared, is_missing},
    publisher::{Letter, Publisher},
    session::Session,
    tenure::Tenure,
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
    /// By lock. A lock keeps other connections out, this keeps out the workers of this client.
    tenures: Mutex<BTreeMap<String, Option<Arc<Tenure>>>>,
    /// What was declared, or found, once.
    declared: Mutex<BTreeSet<(Name, u16, bool)>>,
}

/// A name nobody else of this client can take while this lives.
pub(crate) struct Place {
    estate: Arc<Estate>,
    name: String,
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
            tenures: Mutex::default(),
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

    /// Keeps the place of a lock for one of this client; `None`: somebody has it.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str) -> Option<Place> {
        let mut tenures = self.tenures();
        if tenures.contains_key(name) {
            return None;
        }
        tenures.insert(name.to_owned(), None);
        Some(Place {
            estate: self.clone(),
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
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn declared(&self) -> MutexGuard<'_, BTreeSet<(Name, u16, bool)>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn fill(&self, tenure: Arc<Tenure>) {
        self.estate
            .tenures()
            .insert(self.name.clone(), Some(tenure));
    }

    /// Nobody is to find it any more; the name stays taken.
    pub(crate) fn empty(&self) {
        self.estate.tenures().insert(self.name.clone(), None);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.estate.tenures().remove(&self.name);
    }
}
