//! A worker whose claims can be lost.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Claim, Declare, Error, ErrorKind, Membership, Ownership, Result, Topology, Transport,
};

use super::{
    Fault,
    faults::{Shared, unavailable, unknown},
};

/// A worker among the live ones, shared with the connection.
pub(super) struct Member {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    queue: Arc<Topology>,
    declare: Declare,
    lock: Duration,
    state: Mutex<State>,
}

struct State {
    /// `None` while the connection is lost, and until somebody asks for it again.
    inner: Option<Arc<dyn Membership>>,
    owned: BTreeMap<Claim, Ownership>,
    /// Granted or not given back at the broker, and nobody here knows: free only after a while.
    lapsing: BTreeMap<Claim, Ownership>,
    untold: Vec<Ownership>,
    lost: VecDeque<Ownership>,
    waker: Option<Waker>,
}

/// What the worker has of it.
pub(super) struct FaultyMembership(Arc<Member>);

impl Member {
    pub(super) fn join(
        shared: Arc<Shared>,
        transport: Arc<dyn Transport>,
        (queue, declare, lock): (Arc<Topology>, Declare, Duration),
        inner: Box<dyn Membership>,
    ) -> FaultyMembership {
        let state = State {
            inner: Some(Arc::from(inner)),
            owned: BTreeMap::new(),
            lapsing: BTreeMap::new(),
            untold: Vec::new(),
            lost: VecDeque::new(),
            waker: None,
        };
        let member = Arc::new(Self {
            shared,
            transport,
            queue,
            declare,
            lock,
            state: Mutex::new(state),
        });
        member.shared.connection().add_membership(&member);
        FaultyMembership(member)
    }

    /// The partitions owned here.
    pub(super) fn owned(&self) -> Vec<Ownership> {
        let state = self.state();
        let partition = |o: &&Ownership| matches!(o.claim, Claim::Partition(_));
        state.owned.values().filter(partition).copied().collect()
    }

    /// Loses one ownership at the broker, and lets the worker hear of it after a while.
    pub(super) fn lose(self: &Arc<Self>, ownership: Ownership, news: Duration) {
        {
            let mut state = self.state();
            if state.owned.get(&ownership.claim) != Some(&ownership) {
                return;
            }
            state.owned.remove(&ownership.claim);
            state.untold.push(ownership);
        }
        let lines = self.shared.connection().lines();
        let mut of_it = lines.into_iter().filter(|l| l.stands_for(ownership));
        let line = of_it.find(|line| line.queue() == &self.queue.queue);
        if let Some(line) = &line {
            line.cut();
        }
        self.free(ownership, Duration::ZERO);
        let member = Arc::clone(self);
        self.shared.after(news, move || {
            if let Some(line) = line {
                line.tell("the ownership was lost");
            }
            member.tell();
        });
    }

    /// Gives a claim back at the broker after a while, unless it was acquired again meanwhile.
    fn free(self: &Arc<Self>, ownership: Ownership, wait: Duration) {
        let member = Arc::clone(self);
        self.state().lapsing.insert(ownership.claim, ownership);
        self.shared.spawn(async move {
            tokio::time::sleep(wait).await;
            let inner = {
                let mut state = member.state();
                let lapses = state.lapsing.get(&ownership.claim) == Some(&ownership);
                if !lapses {
                    return;
                }
                state.lapsing.remove(&ownership.claim);
                state.inner.clone()
            };
            if let Some(inner) = inner {
                let _ = inner.release(ownership).await;
            }
        });
    }

    /// Loses everything at the broker; the worker has still to hear of it.
    pub(super) fn cut(&self) {
        let inner = {
            let mut state = self.state();
            let owned = std::mem::take(&mut state.owned);
            state.untold.extend(owned.into_values());
            state.lapsing.clear();
            state.inner.take()
        };
        drop(inner);
    }

    /// The worker hears of what it has lost.
    pub(super) fn tell(&self) {
        let mut state = self.state();
        let untold = std::mem::take(&mut state.untold);
        state.lost.extend(untold);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The membership at the broker, joined again where the connection was lost.
    async fn inner(&self, fault: Fault) -> Result<Arc<dyn Membership>> {
        self.shared.refuses(fault).await?;
        if let Some(inner) = &self.state().inner {
            return Ok(Arc::clone(inner));
        }
        let joined = self
            .transport
            .join(&self.queue, self.declare, self.lock)
            .await?;
        let joined: Arc<dyn Membership> = Arc::from(joined);
        let mut state = self.state();
        Ok(Arc::clone(state.inner.get_or_insert(joined)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Membership for FaultyMembership {
    async fn live(&self) -> Result<usize> {
        self.0.inner(Fault::LookRefused).await?.live().await
    }

    async fn free(&self) -> Result<Vec<u16>> {
        self.0.inner(Fault::LookRefused).await?.free().await
    }

    async fn acquire(&self, claim: Claim) -> Result<Option<Ownership>> {
        let member = &self.0;
        let inner = member.inner(Fault::ClaimRefused).await?;
        if member.shared.strikes(Fault::ClaimUnanswered) {
            if let Some(ownership) = inner.acquire(claim).await? {
                member.free(ownership, member.shared.late());
            }
            return Err(unknown("claim-unanswered"));
        }
        // What the broker still takes for this worker's is not free.
        if member.state().lapsing.contains_key(&claim) {
            return Ok(None);
        }
        let owned = inner.acquire(claim).await?;
        if let Some(ownership) = owned {
            member.state().owned.insert(claim, ownership);
        }
        Ok(owned)
    }

    async fn release(&self, ownership: Ownership) -> Result<()> {
        let member = &self.0;
        member.shared.alive().await;
        let owns = member.state().owned.get(&ownership.claim) == Some(&ownership);
        if !owns {
            return Err(Error::new(
                ErrorKind::Stale,
                "injected: the ownership is gone",
            ));
        }
        if member.shared.strikes(Fault::ReleaseRefused) {
            member.state().owned.remove(&ownership.claim);
            member.free(ownership, member.shared.late());
            return Err(unavailable("release-refused"));
        }
        let inner = member.inner(Fault::Died).await?;
        member.state().owned.remove(&ownership.claim);
        inner.release(ownership).await
    }

    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Ownership> {
        let member = &self.0;
        let mut state = member.state();
        if member.shared.is_dead() {
            return Poll::Pending;
        }
        state.waker = Some(cx.waker().clone());
        if let Some(lost) = state.lost.pop_front() {
            return Poll::Ready(lost);
        }
        let inner = state.inner.clone();
        let Some(Poll::Ready(lost)) = inner.map(|inner| inner.poll_lost(cx)) else {
            return Poll::Pending;
        };
        state.owned.remove(&lost.claim);
        Poll::Ready(lost)
    }
}

impl Drop for FaultyMembership {
    fn drop(&mut self) {
        self.0.cut();
    }
}
