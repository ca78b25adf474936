//! This process among the live workers of a queue with sessions.
//!
//! A worker is alive while it says so before it is given up, and owns what its leases say. Both are
//! renewed on the thread that renews locks, where no handler can starve them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Claim, Error, ErrorKind, Membership, Ownership, Part, Result, Topology, chaos::Flaw,
};
use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    entry::int,
    failure::{Broken, checked, is_passing, refused, unexpected, unread},
    lease::{Holder, Key, Lease, Leases},
    link::Links,
    names::{GROUP, Keys},
    scripts::{self, ACQUIRE, BEAT, LET_GO},
    site::{Site, patience},
    spread::spread,
};

mod keeping;

pub(crate) use keeping::renew_now;

/// The framework's end: dropping it leaves.
pub(crate) struct RedisMembership(pub(crate) Arc<Member>);

/// One live worker.
pub(crate) struct Member {
    site: Arc<Site>,
    /// For what is asked; renewals have links of their own.
    links: Arc<Links>,
    topology: Arc<Topology>,
    members: Key,
    /// Our name among the members.
    name: String,
    /// Where subscriptions find what they were granted.
    granted: Arc<Leases>,
    inner: Mutex<Inner>,
    changed: Notify,
    /// The same for who looks at what is uncertain.
    sooner: Notify,
    left: CancellationToken,
    /// Lives until the farewell is said.
    _alive: Arc<DropGuard>,
}

struct Inner {
    leases: BTreeMap<Claim, Arc<Lease>>,
    lost: VecDeque<Ownership>,
    watcher: Option<Waker>,
    /// How long a claim lasts: as the subscriptions say, once there is one.
    lock: Duration,
    /// Until when we count as alive, whatever happens.
    alive_until: Duration,
    alive_for: Duration,
}

/// What connects a member with its client.
pub(crate) struct Surroundings {
    pub(crate) site: Arc<Site>,
    pub(crate) links: Arc<Links>,
    pub(crate) granted: Arc<Leases>,
    pub(crate) alive: Arc<DropGuard>,
}

impl Member {
    /// Joins the live workers of this queue, which is declared.
    pub(crate) async fn join(
        around: Surroundings,
        topology: &Arc<Topology>,
        lock: Duration,
    ) -> Result<Arc<Self>> {
        let keys = workers(&around.site, topology);
        let member = Arc::new(Self {
            members: Key {
                name: keys.members(),
                slot: keys.slot,
            },
            name: around.site.options.ids.text().to_string(),
            topology: Arc::clone(topology),
            inner: Mutex::new(Inner {
                leases: BTreeMap::new(),
                lost: VecDeque::new(),
                watcher: None,
                lock,
                alive_until: Duration::ZERO,
                alive_for: Duration::ZERO,
            }),
            changed: Notify::new(),
            sooner: Notify::new(),
            left: CancellationToken::new(),
            site: around.site,
            links: around.links,
            granted: around.granted,
            _alive: around.alive,
        });
        member.beat(&member.links).await?;
        Ok(member)
    }

    /// Leaves: what is owned is lost without a word.
    pub(crate) fn leave(&self) {
        self.left.cancel();
        let leases: Vec<_> = self.inner().leases.values().cloned().collect();
        for lease in leases {
            lease.end();
        }
    }

    /// Says that we are alive, and counts the living.
    async fn beat(&self, links: &Links) -> Result<usize> {
        let lock = self.inner().lock;
        let sent = self.now();
        let limit = patience(&self.site.options);
        let reply = scripts::run(links, self.members.slot, self.beating(lock), limit).await;
        let count = int(&checked(reply.map_err(unread)?)?).ok_or_else(unexpected)?;
        let mut inner = self.inner();
        inner.alive_until = sent + lock;
        inner.alive_for = lock;
        usize::try_from(count).map_err(|_| unexpected())
    }

    fn beating(&self, lock: Duration) -> Cmd {
        let mut command = BEAT.call(&[&self.members.name]);
        command.arg(&self.name).arg(ms(lock));
        command
    }

    fn letting_go(&self, lease: &Lease) -> Cmd {
        let consumed = match lease.ownership.claim {
            Claim::Partition(index) => Some(self.partition_keys(index).stream),
            Claim::Forwarder => Some(self.plain_keys().stream),
            Claim::Seat(_) => None,
        };
        let names = std::iter::once(&*lease.key.name).chain(consumed.as_deref());
        let mut command = LET_GO.call(&names.collect::<Vec<_>>());
        command.arg(&lease.owner).arg(GROUP);
        command
    }

    fn plain_keys(&self) -> Keys {
        Keys::new(&self.site.options.key_prefix, &self.topology.queue)
    }

    fn partition_keys(&self, index: u16) -> Keys {
        let of = self.topology.partitions;
        let scope = self.topology.scope(Part::Partition { index, of });
        Keys::new(&self.site.options.key_prefix, &scope)
    }

    /// The lease of a claim, and the token where it has one.
    fn keys(&self, claim: Claim) -> (Key, Option<String>) {
        let (keys, name, token) = match claim {
            Claim::Partition(index) => {
                let keys = self.partition_keys(index);
                let (lease, token) = (keys.lease(), keys.token());
                (keys, lease, Some(token))
            }
            Claim::Seat(seat) => {
                let keys = workers(&self.site, &self.topology);
                let digits = self.topology.partitions.saturating_sub(1).to_string().len();
                let seat = format!("{seat:0digits$}");
                let name = keys.seat(&seat);
                (keys, name, None)
            }
            Claim::Forwarder => {
                let keys = self.plain_keys();
                let name = keys.forwarder();
                (keys, name, None)
            }
        };
        (
            Key {
                name,
                slot: keys.slot,
            },
            token,
        )
    }

    /// Runs a script that can be repeated, until it is answered or the confirmation time-out is over.
    async fn insist(&self, slot: u16, command: &Cmd) -> Result<Value> {
        let deadline = self.now() + self.site.options.confirm_timeout;
        let mut pause = Duration::from_millis(20);
        loop {
            let left = deadline.saturating_sub(self.now());
            let limit = left.min(patience(&self.site.options));
            let error = match scripts::run(&self.links, slot, command.clone(), limit).await {
                Ok(Value::ServerError(error)) if is_passing(&error) => refused(&error),
                Ok(reply) => return checked(reply),
                Err(broken @ Broken::Before(_)) => return Err(broken.into_error()),
                Err(broken) => unread(broken),
            };
            if left <= pause {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn forget(&self, ownership: Ownership) {
        let mut inner = self.inner();
        let of_claim = inner.leases.get(&ownership.claim);
        if of_claim.is_some_and(|lease| lease.ownership == ownership) {
            inner.leases.remove(&ownership.claim);
        }
    }

    fn open(&self) -> Result<()> {
        if self.left.is_cancelled() || self.site.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.site.options.clock.monotonic()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn shortest(&self) -> Duration {
        let locks = self.leases.values().map(|lease| lease.lock());
        locks.min().unwrap_or(self.lock).min(self.lock)
    }
}

impl Holder for Member {
    fn lost(&self, ownership: Ownership) {
        self.forget(ownership);
        let mut inner = self.inner();
        inner.lost.push_back(ownership);
        let watcher = inner.watcher.take();
        drop(inner);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    fn changed(&self, lock: Duration) {
        self.inner().lock = lock;
        self.changed.notify_one();
        self.sooner.notify_one();
    }
}

#[async_trait]
impl Membership for RedisMembership {
    async fn live(&self) -> Result<usize> {
        self.0.open()?;
        self.0.beat(&self.0.links).await
    }

    async fn free(&self) -> Result<Vec<u16>> {
        let member = &self.0;
        member.open()?;
        let indexes = 0..member.topology.partitions;
        let commands: Vec<_> = indexes
            .clone()
            .map(|index| {
                let (lease, _) = member.keys(Claim::Partition(index));
                let mut command = redis::cmd("EXISTS");
                command.arg(lease.name);
                (lease.slot, command)
            })
            .collect();
        let replies = spread(&member.links, &commands, patience(&member.site.options)).await;
        let mut free = Vec::new();
        for (index, reply) in indexes.zip(replies) {
            let is_free = int(&checked(reply.map_err(unread)?)?) == Some(0);
            if is_free || Flaw::TwoOwners.on() {
                free.push(index);
            }
        }
        Ok(free)
    }

    async fn acquire(&self, claim: Claim) -> Result<Option<Ownership>> {
        let member = &self.0;
        member.open()?;
        let of = member.topology.partitions;
        if matches!(claim, Claim::Partition(index) | Claim::Seat(index) if index >= of) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{claim:?} is not one of {of}"),
            ));
        }
        if member.inner().leases.contains_key(&claim) {
            return Ok(None);
        }
        let (lease, token) = member.keys(claim);
        let owner = match Flaw::TwoOwners.on() {
            true => "longshore".to_owned(),
            false => member.site.options.ids.text().to_string(),
        };
        let lock = member.inner().lock;
        let mut command = match &token {
            Some(token) => ACQUIRE.call(&[&lease.name, token]),
            None => ACQUIRE.call(&[&lease.name]),
        };
        command.arg(&owner).arg(ms(lock));
        let sent = member.now();
        let reply = member.insist(lease.slot, &command).await?;
        let token = match int(&reply) {
            Some(-1) => return Ok(None),
            token => token.and_then(|token| u64::try_from(token).ok()),
        };
        let ownership = Ownership {
            claim,
            token: token.ok_or_else(unexpected)?,
        };
        let holder: Weak<Member> = Arc::downgrade(member);
        let lease = Arc::new(Lease::new(
            (member.topology.queue.clone(), of),
            ownership,
            (lease, owner),
            (sent, lock),
            holder,
        ));
        // It took long, and might be over before anybody knows of it.
        if lease.is_uncertain(member.now()) {
            return Ok(None);
        }
        member.granted.add(&lease);
        member.inner().leases.insert(claim, Arc::clone(&lease));
        if member.left.is_cancelled() {
            lease.end();
        }
        member.changed.notify_one();
        Ok(Some(ownership))
    }

    async fn release(&self, ownership: Ownership) -> Result<()> {
        let member = &self.0;
        let of_claim = member.inner().leases.get(&ownership.claim).cloned();
        let lease = of_claim
            .filter(|lease| lease.ownership == ownership)
            .ok_or_else(|| {
                let text = "this ownership was released before, or is somebody else's";
                Error::new(ErrorKind::Stale, text)
            })?;
        // What was read in vain is given back before anybody else may read.
        lease.tasks.close();
        let limit = patience(&member.site.options);
        let _ = tokio::time::timeout(limit, lease.tasks.wait()).await;
        lease.end();
        member.forget(ownership);
        member
            .insist(lease.key.slot, &member.letting_go(&lease))
            .await?;
        Ok(())
    }

    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Ownership> {
        let mut inner = self.0.inner();
        if let Some(ownership) = inner.lost.pop_front() {
            return Poll::Ready(ownership);
        }
        match &inner.watcher {
            Some(watcher) if watcher.will_wake(cx.waker()) => {}
            _ => inner.watcher = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for RedisMembership {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The keys of all workers of a queue with so many partitions: `ls:{orders.s16}:…`.
fn workers(site: &Site, topology: &Topology) -> Keys {
    let prefix = &site.options.key_prefix;
    Keys::workers(prefix, &topology.queue, topology.partitions)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
