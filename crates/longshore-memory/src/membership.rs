//! A worker among the live ones of a queue with sessions.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use longshore_core::{Claim, Error, ErrorKind, Membership, Name, Ownership, Result};

use crate::{
    sessions::Sessions,
    state::{Shared, State, no_such},
};

/// One live worker. It owns nothing that the broker does not know of.
pub(crate) struct MemoryMembership {
    shared: Arc<Shared>,
    queue: Name,
    of: u16,
    member: u64,
}

impl MemoryMembership {
    /// Joins the workers of a queue that has so many partitions.
    pub(crate) fn join(
        shared: &Arc<Shared>,
        client: u64,
        queue: &Name,
        of: u16,
    ) -> Result<Box<dyn Membership>> {
        let member = shared.change(|state, _| {
            let member = state.serial();
            sessions(state, queue, of)?.claims.join(member, client);
            Ok::<_, Error>(member)
        })?;
        Ok(Box::new(Self {
            shared: shared.clone(),
            queue: queue.clone(),
            of,
            member,
        }))
    }

    /// One step, while this worker lives.
    fn step<T>(&self, step: impl FnOnce(&mut Sessions, &mut Vec<Waker>) -> Result<T>) -> Result<T> {
        self.shared.change(|state, wakers| {
            let sessions = sessions(state, &self.queue, self.of)?;
            if !sessions.claims.lives(self.member) {
                return Err(Error::new(ErrorKind::Closed, "the client was closed"));
            }
            step(sessions, wakers)
        })
    }
}

fn sessions<'a>(state: &'a mut State, queue: &Name, of: u16) -> Result<&'a mut Sessions> {
    let sessions = state.queue(queue)?.sessions.get_mut(&of);
    sessions.ok_or_else(|| no_such("such number of partitions of the queue", queue))
}

#[async_trait]
impl Membership for MemoryMembership {
    async fn live(&self) -> Result<usize> {
        self.step(|sessions, _| Ok(sessions.claims.live()))
    }

    async fn free(&self) -> Result<Vec<u16>> {
        self.step(|sessions, _| {
            let free = |index: &u16| sessions.claims.is_free(Claim::Partition(*index));
            Ok((0..self.of).filter(free).collect())
        })
    }

    async fn acquire(&self, claim: Claim) -> Result<Option<Ownership>> {
        self.step(|sessions, _| {
            if let Claim::Partition(index) = claim
                && index >= self.of
            {
                let (queue, of) = (&self.queue, self.of);
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the queue \"{queue}\" has {of} partitions and none is number {index}"),
                ));
            }
            let owned = sessions.claims.acquire(self.member, claim);
            if let (Some(owned), Claim::Partition(index)) = (owned, claim)
                && let Some(partition) = sessions.partition(index)
            {
                let mut book = self.shared.store.book();
                book.states.grant(&partition.scope, owned.token);
            }
            Ok(owned)
        })
    }

    async fn release(&self, ownership: Ownership) -> Result<()> {
        self.shared.change(|state, wakers| {
            let queue = state.queue(&self.queue)?;
            let sessions = queue.sessions.get_mut(&self.of);
            let ours = sessions.is_some_and(|s| s.claims.release(self.member, ownership));
            if !ours {
                return Err(Error::new(
                    ErrorKind::Stale,
                    "this ownership is no longer there to be given back",
                ));
            }
            queue.stop_reading(self.of, ownership.claim, wakers);
            Ok(())
        })
    }

    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Ownership> {
        self.shared
            .change(|state, _| match sessions(state, &self.queue, self.of) {
                Ok(sessions) => sessions.claims.poll_lost(self.member, cx),
                Err(_) => Poll::Pending,
            })
    }
}

impl Drop for MemoryMembership {
    fn drop(&mut self) {
        self.shared.change(|state, wakers| {
            let Some(queue) = state.queues.get_mut(&self.queue) else {
                return;
            };
            queue.lose_claims(self.of, Some(self.member), wakers);
            if let Some(sessions) = queue.sessions.get_mut(&self.of) {
                sessions.claims.leave(self.member);
            }
        });
    }
}
