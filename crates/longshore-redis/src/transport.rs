//! One Redis as the rest of Longshore sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, ConnectOptions, Declare, Error, ErrorKind, Membership, Outgoing, Part,
    Published, ReplyAddress, Result, Source, Store, Subscribed, Subscription, Text, Topology,
    Transport, defaults,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    address::{Address, Kind},
    admin::RedisAdmin,
    delay::Promoter,
    inbox::{Inbox, InboxSource},
    lane::Lane,
    link::{Link, Links},
    locks::Renewal,
    names::check_prefix,
    publisher::Publisher,
    reader, server,
    settler::RedisSettler,
    site::{Place, Site},
    source::RedisSource,
    store::RedisStore,
    takeover, topology,
};

mod sessions;

use sessions::Sessions;

/// The transport over Redis Streams.
pub(crate) struct RedisTransport {
    site: Arc<Site>,
    capabilities: Capabilities,
    publisher: Publisher,
    store: Arc<RedisStore>,
    /// For everything that does not block and is not publishing.
    links: Arc<Links>,
    admin: RedisAdmin,
    renewal: Mutex<Option<Arc<Renewal>>>,
    /// By scope.
    promoters: Mutex<BTreeMap<Text, Weak<Promoter>>>,
    lanes: Mutex<Vec<Weak<Lane>>>,
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    sessions: Sessions,
    /// Those that may hold entries.
    tasks: TaskTracker,
    killed: CancellationToken,
    /// Shared with every source: the last of them ends the tasks.
    alive: Arc<DropGuard>,
}

impl RedisTransport {
    pub(crate) async fn connect(url: &str, options: ConnectOptions) -> Result<Self> {
        let address = Address::parse(url, &options)?;
        check_prefix(&options.key_prefix)?;
        let site = Arc::new(Site::new(address, options)?);
        let links = Arc::new(Links::new(Arc::clone(&site), "settle"));
        links.link(0).await?.ensure().await?;
        let durable = server::inspect(&site, &links).await?;
        let cluster = site.address.kind == Kind::Cluster;
        let mut capabilities = Capabilities::default();
        capabilities.lanes = true;
        capabilities.topics = true;
        capabilities.partitions = true;
        capabilities.atomic_topics = !cluster;
        capabilities.longest_delay = Some(defaults::LONGEST_DELAY);
        capabilities.dedup_at_publish = true;
        capabilities.atomic_settle = true;
        capabilities.replies = true;
        capabilities.durable = durable;
        let killed = CancellationToken::new();
        Ok(Self {
            capabilities,
            publisher: Publisher::new(Arc::clone(&site)),
            store: Arc::new(RedisStore::new(Arc::clone(&site))),
            admin: RedisAdmin::new(Arc::clone(&site)),
            links,
            site,
            renewal: Mutex::new(None),
            promoters: Mutex::new(BTreeMap::new()),
            lanes: Mutex::new(Vec::new()),
            inboxes: Mutex::new(Vec::new()),
            sessions: Sessions::default(),
            tasks: TaskTracker::new(),
            alive: Arc::new(killed.clone().drop_guard()),
            killed,
        })
    }

    fn open(&self) -> Result<()> {
        if self.site.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        Ok(())
    }

    /// Declares within the time to connect.
    async fn prepare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        let declared = self.declare(topology, declare);
        let limit = self.site.options.connect_timeout;
        tokio::time::timeout(limit, declared).await.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                format!("no Redis server answered within {limit:?}"),
            )
        })?
    }

    /// The one thread that renews locks, started with the first subscription.
    fn renewal(&self) -> Result<Arc<Renewal>> {
        let mut renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renewal) = &*renewal {
            return Ok(Arc::clone(renewal));
        }
        let started = Arc::new(Renewal::start(Arc::clone(&self.site), self.killed.clone())?);
        Ok(Arc::clone(renewal.insert(started)))
    }

    /// The promoter of all lanes of a queue, started where none runs.
    fn promoter(&self, lane: &Lane) -> Arc<Promoter> {
        let mut promoters = self
            .promoters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        promoters.retain(|_, promoter| promoter.strong_count() > 0);
        let scope = &lane.keys.scope;
        if let Some(promoter) = promoters.get(scope).and_then(Weak::upgrade) {
            return promoter;
        }
        let (promoter, work) = Promoter::new(lane);
        tokio::spawn(work.run());
        let promoter = Arc::new(promoter);
        promoters.insert(scope.clone(), Arc::downgrade(&promoter));
        promoter
    }
}

#[async_trait]
impl Transport for RedisTransport {
    fn system(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.open()?;
        topology::declare(&self.links, &self.site.options, topology, declare).await?;
        self.sessions.note_declared(topology);
        Ok(())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        if self.open().is_err() {
            return batch
                .iter()
                .map(|_| self.open().map(|()| Published::Accepted))
                .collect();
        }
        self.publisher.publish(batch).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        self.open()?;
        check(&subscription)?;
        if matches!(subscription.part, Part::Partition { .. }) || subscription.ownership.is_some() {
            return self.consume_owned(subscription).await;
        }
        let lane = Arc::new(Lane::new(
            Arc::clone(&self.site),
            Arc::clone(&self.links),
            subscription,
            self.killed.child_token(),
        )?);
        self.prepare(&lane.subscription.topology, lane.subscription.declare)
            .await?;
        let renewal = self.renewal()?;
        renewal.watch(&lane);
        let promoter = self.promoter(&lane);
        let link = Link::new(Arc::clone(&self.site), Place::Slot(lane.keys.slot), "read");
        self.tasks.spawn(reader::run(Arc::clone(&lane), link));
        self.tasks
            .spawn(takeover::search_suspects(Arc::clone(&lane)));
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(&lane));
        drop(lanes);
        let source = RedisSource {
            lane: Arc::clone(&lane),
            _promoter: promoter,
            _alive: Arc::clone(&self.alive),
        };
        Ok((Box::new(source), Arc::new(RedisSettler(lane))))
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        lock: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.open()?;
        Ok(Box::new(self.join_workers(queue, declare, lock).await?))
    }

    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        self.open()?;
        let opened = Inbox::open(Arc::clone(&self.site), self.killed.child_token()).await;
        let (inbox, link) = opened?;
        self.tasks.spawn(Arc::clone(&inbox).run(link));
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&inbox));
        drop(inboxes);
        let source = InboxSource {
            inbox,
            _alive: Arc::clone(&self.alive),
        };
        Ok((source.inbox.address(), Box::new(source)))
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::clone(&self.store) as Arc<dyn Store>)
    }

    fn admin(&self) -> &dyn Admin {
        &self.admin
    }

    async fn close(&self, within: Duration) {
        // 1. Sources take nothing more; a read that is under way ends by itself and gives back.
        let lanes: Vec<_> = {
            let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.iter().filter_map(Weak::upgrade).collect()
        };
        for lane in &lanes {
            lane.table
                .end(Error::new(ErrorKind::Closed, "the client was closed"));
            lane.table.abandon();
        }
        let inboxes =
            std::mem::take(&mut *self.inboxes.lock().unwrap_or_else(PoisonError::into_inner));
        for inbox in inboxes.iter().filter_map(Weak::upgrade) {
            inbox.end(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        self.sessions.close();
        // 2. Promoters hold nothing and stop where they are.
        self.promoters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.tasks.close();
        let _ = tokio::time::timeout(within, self.tasks.wait()).await;
        // 3. Whatever still runs ends, and nothing connects any more.
        self.site.closed.cancel();
        self.killed.cancel();
        self.publisher.close();
        self.store.close();
        self.links.close();
        self.admin.close();
    }
}

fn check(subscription: &Subscription) -> Result<()> {
    let invalid = |text: &str| Err(Error::new(ErrorKind::Invalid, text));
    if subscription.prefetch == 0 {
        return invalid("a prefetch is 1 to 65535");
    }
    if subscription.lock < Duration::from_millis(300)
        || subscription.lock > Duration::from_secs(12 * 60 * 60)
    {
        return invalid("a lock lasts 300 ms to 12 h");
    }
    Ok(())
}
