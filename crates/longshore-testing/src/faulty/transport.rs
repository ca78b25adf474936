//! The transport: publishing, and the door to everything else.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Declare, Error, ErrorKind, Membership, Outgoing, Published, Receipt,
    ReplyAddress, Result, Source, Store, Subscribed, Subscription, Topology, Transport,
};

use super::{
    Fault, Faults,
    faults::{LockBreaker, Shared, unknown},
    inbox::Inbox,
    line::Line,
    membership::Member,
    settler::FaultySettler,
    source::{FaultySource, Unmarked},
    store::FaultyStore,
};

/// One process's connection to a broker, about to misbehave.
#[must_use = "nothing is there until it is opened"]
pub struct Faulty {
    inner: Arc<dyn Transport>,
    seed: u64,
    store: Option<Arc<dyn Store>>,
    breaker: Option<LockBreaker>,
}

impl Faulty {
    /// Round this transport, with what goes wrong drawn from this seed.
    pub fn over(inner: Arc<dyn Transport>, seed: u64) -> Self {
        Self {
            inner,
            seed,
            store: None,
            breaker: None,
        }
    }

    /// Plays a broker that keeps neither dedup marks nor session state, as RabbitMQ does: they live in
    /// this store, which settlement and publish do not touch. All processes of a test have to agree.
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// How one lock is ended at this broker, as one that ran out would be; `false` where it is gone
    /// already. Without it [`Fault::LockLost`] never happens.
    pub fn lock_breaker(mut self, end: impl Fn(Receipt) -> bool + Send + Sync + 'static) -> Self {
        self.breaker = Some(Arc::new(end));
        self
    }

    /// The transport, and what makes it suffer.
    pub fn open(self) -> (Arc<dyn Transport>, Faults) {
        let faults = Faults::new(self.seed, self.breaker);
        let shared = Arc::clone(faults.shared());
        let mut capabilities = self.inner.capabilities().clone();
        let apart = self.store.is_some();
        if apart {
            capabilities.atomic_settle = false;
            capabilities.dedup_at_publish = false;
        }
        let store = self.store.or_else(|| self.inner.store());
        let store = store.map(|inner| {
            let shared = Arc::clone(&shared);
            Arc::new(FaultyStore { shared, inner }) as Arc<dyn Store>
        });
        let transport = FaultyTransport {
            inner: self.inner,
            shared,
            capabilities,
            store,
            apart,
        };
        (Arc::new(transport), faults)
    }
}

/// The transport that misbehaves.
pub(super) struct FaultyTransport {
    pub(super) inner: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
    capabilities: Capabilities,
    store: Option<Arc<dyn Store>>,
    /// The store is another place than the broker.
    apart: bool,
}

/// What becomes of one publish.
enum Fate {
    Answered(Error),
    /// It arrives after this long, and nobody hears of it.
    Later(Duration),
    Sent {
        heard: bool,
    },
}

impl FaultyTransport {
    fn fate(&self) -> Fate {
        let shared = &self.shared;
        if shared.strikes(Fault::PublishRefused) {
            Fate::Answered(Error::new(ErrorKind::Full, "injected: publish-refused"))
        } else if shared.strikes(Fault::PublishLost) {
            Fate::Answered(unknown("publish-lost"))
        } else if shared.strikes(Fault::PublishLate) {
            Fate::Later(shared.late())
        } else {
            let heard = !shared.strikes(Fault::ConfirmLost);
            Fate::Sent { heard }
        }
    }

    /// Arrives later, whatever becomes of who sent it, unless the process dies first.
    fn send_later(&self, out: Outgoing, wait: Duration) {
        let (inner, of) = (Arc::clone(&self.inner), self.shared.weak());
        self.shared.spawn(async move {
            tokio::time::sleep(wait).await;
            if of.upgrade().is_some_and(|shared| !shared.is_dead()) {
                inner.publish(vec![out]).await;
            }
        });
    }
}

#[async_trait]
impl Transport for FaultyTransport {
    fn system(&self) -> &'static str {
        "faulty"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.shared.refuses(Fault::DeclareRefused).await?;
        self.inner.declare(topology, declare).await
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        let shared = &self.shared;
        if let Err(error) = shared.connected().await {
            return batch.iter().map(|_| Err(error.again())).collect();
        }
        let mut answers = Vec::with_capacity(batch.len());
        let (mut sent, mut heard) = (Vec::new(), Vec::new());
        for mut out in batch {
            if self.apart {
                out.dedup_window = None;
            }
            match self.fate() {
                Fate::Answered(error) => answers.push(Some(Err(error))),
                Fate::Later(wait) => {
                    self.send_later(out, wait);
                    answers.push(Some(Err(unknown("publish-late"))));
                }
                Fate::Sent { heard: is_heard } => {
                    answers.push(None);
                    sent.push(out);
                    heard.push(is_heard);
                }
            }
        }
        let late = shared.strikes(Fault::ConfirmLate).then(|| shared.late());
        let (before, after) = match late {
            Some(late) if shared.below(2) == 0 => (late, Duration::ZERO),
            late => (Duration::ZERO, late.unwrap_or_default()),
        };
        let published = if before.is_zero() {
            self.inner.publish(sent).await
        } else {
            // It is on its way, whoever waits for it.
            let (inner, of) = (Arc::clone(&self.inner), shared.weak());
            let publishing = shared.spawn(async move {
                tokio::time::sleep(before).await;
                match of.upgrade().is_some_and(|shared| !shared.is_dead()) {
                    true => inner.publish(sent).await,
                    false => Vec::new(),
                }
            });
            publishing.await.unwrap_or_default()
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        shared.alive().await;
        let mut published =
            published
                .into_iter()
                .zip(heard)
                .map(|(answer, heard)| match (&answer, heard) {
                    (Ok(_), false) => Err(unknown("confirm-lost")),
                    _ => answer,
                });
        let none = || Err(unknown("no answer"));
        let answers = answers.into_iter();
        let answered = answers.map(|a| a.unwrap_or_else(|| published.next().unwrap_or_else(none)));
        answered.collect()
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        self.shared.refuses(Fault::SubscribeRefused).await?;
        let subscribed = self.inner.subscribe(subscription.clone()).await?;
        let (shared, inner) = (Arc::clone(&self.shared), Arc::clone(&self.inner));
        let line = Line::open(shared, inner, subscription, subscribed);
        let settler = Arc::new(FaultySettler(Arc::clone(&line)));
        let source = FaultySource(line);
        self.shared.connected().await?;
        match self.apart {
            true => Ok((Box::new(Unmarked(source)), settler)),
            false => Ok((Box::new(source), settler)),
        }
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        lock: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.shared.refuses(Fault::JoinRefused).await?;
        let membership = self.inner.join(queue, declare, lock).await?;
        let of = (Arc::clone(queue), declare, lock);
        let (shared, inner) = (Arc::clone(&self.shared), Arc::clone(&self.inner));
        Ok(Box::new(Member::join(shared, inner, of, membership)))
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.clone()
    }

    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        self.shared.refuses(Fault::InboxRefused).await?;
        let (address, source) = self.inner.inbox().await?;
        let inbox = Inbox::open(Arc::clone(&self.shared), source);
        Ok((address, Box::new(inbox)))
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn close(&self, within: Duration) {
        if !self.shared.is_dead() {
            self.inner.close(within).await;
        }
    }
}
