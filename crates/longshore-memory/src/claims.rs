//! Who lives, and who owns what, of one queue with sessions.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
};

use longshore_core::{Claim, Ownership, chaos::Flaw};

/// The live workers and what they own.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    members: BTreeMap<u64, Member>,
    owners: BTreeMap<Claim, Owner>,
    /// The last token of each claim that has one.
    tokens: BTreeMap<Claim, u64>,
}

#[derive(Debug)]
struct Member {
    /// The transport it belongs to.
    client: u64,
    closed: bool,
    lost: VecDeque<Ownership>,
    losing: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    member: u64,
    token: u64,
}

impl Claims {
    /// Adds a live worker of a transport.
    pub(crate) fn join(&mut self, member: u64, client: u64) {
        let joined = Member {
            client,
            closed: false,
            lost: VecDeque::new(),
            losing: None,
        };
        self.members.insert(member, joined);
    }

    /// Whether this worker lives.
    pub(crate) fn lives(&self, member: u64) -> bool {
        self.members.get(&member).is_some_and(|m| !m.closed)
    }

    /// How many workers live.
    pub(crate) fn live(&self) -> usize {
        self.members.values().filter(|m| !m.closed).count()
    }

    /// Whether nobody owns this.
    pub(crate) fn is_free(&self, claim: Claim) -> bool {
        !self.owners.contains_key(&claim)
    }

    /// Whether exactly this ownership is in force.
    pub(crate) fn is_owned(&self, ownership: Ownership) -> bool {
        let owner = self.owners.get(&ownership.claim);
        owner.is_some_and(|owner| owner.token == ownership.token)
    }

    /// Gives a claim to a worker; `None` where another has it.
    pub(crate) fn acquire(&mut self, member: u64, claim: Claim) -> Option<Ownership> {
        if let Some(owner) = self.owners.get(&claim) {
            let token = owner.token;
            let may = owner.member == member || Flaw::TwoOwners.on();
            return may.then_some(Ownership { claim, token });
        }
        let token = match claim {
            Claim::Seat(_) => 0,
            Claim::Partition(_) | Claim::Forwarder => self.next_token(claim),
        };
        self.owners.insert(claim, Owner { member, token });
        Some(Ownership { claim, token })
    }

    fn next_token(&mut self, claim: Claim) -> u64 {
        let token = self.tokens.entry(claim).or_default();
        if *token == 0 || !Flaw::TokenStays.on() {
            *token += 1;
        }
        *token
    }

    /// Takes a claim back; `false` where it was not this worker's.
    pub(crate) fn release(&mut self, member: u64, ownership: Ownership) -> bool {
        let owner = self.owners.get(&ownership.claim);
        let ours = owner.is_some_and(|o| o.member == member && o.token == ownership.token);
        if ours {
            self.owners.remove(&ownership.claim);
        }
        ours
    }

    /// Takes a claim from whoever has it, and tells him.
    pub(crate) fn lose(&mut self, claim: Claim, wakers: &mut Vec<Waker>) -> bool {
        let Some(Owner { member, token }) = self.owners.remove(&claim) else {
            return false;
        };
        if let Some(member) = self.members.get_mut(&member) {
            member.lost.push_back(Ownership { claim, token });
            wakers.extend(member.losing.take());
        }
        true
    }

    /// Everything that is owned, by one worker or by all.
    pub(crate) fn owned(&self, by: Option<u64>) -> Vec<Claim> {
        let owned = self
            .owners
            .iter()
            .filter(|(_, owner)| by.is_none_or(|member| member == owner.member));
        owned.map(|(claim, _)| *claim).collect()
    }

    /// The workers of one transport. They live no longer.
    pub(crate) fn close(&mut self, client: u64) -> Vec<u64> {
        let mut closed = Vec::new();
        for (id, member) in &mut self.members {
            if member.client == client {
                member.closed = true;
                closed.push(*id);
            }
        }
        closed
    }

    /// Forgets a worker that is gone.
    pub(crate) fn leave(&mut self, member: u64) {
        self.members.remove(&member);
    }

    /// What a worker has lost, each once.
    pub(crate) fn poll_lost(&mut self, member: u64, cx: &mut Context<'_>) -> Poll<Ownership> {
        let Some(member) = self.members.get_mut(&member) else {
            return Poll::Pending;
        };
        match member.lost.pop_front() {
            Some(lost) => Poll::Ready(lost),
            None => {
                member.losing = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_one_owner_and_its_tokens_grow() {
        let mut claims = Claims::default();
        claims.join(1, 10);
        claims.join(2, 20);
        let (third, mut token) = (Claim::Partition(3), 0);
        for member in [1, 2, 1] {
            let owned = claims.acquire(member, third).expect("it is free");
            assert!(owned.token > token && claims.is_owned(owned));
            assert_eq!(claims.acquire(member, third), Some(owned));
            assert_eq!(claims.acquire(3 - member, third), None);
            assert!(!claims.release(3 - member, owned));
            assert!(claims.release(member, owned) && !claims.release(member, owned));
            assert!(!claims.is_owned(owned) && claims.is_free(third));
            token = owned.token;
        }
        let seat = claims.acquire(1, Claim::Seat(0)).expect("it is free");
        assert_eq!(seat.token, 0);
        let other = claims.acquire(2, Claim::Partition(4)).expect("it is free");
        assert_eq!(other.token, 1);
        assert_eq!(claims.owned(Some(1)), [Claim::Seat(0)]);
        assert_eq!(claims.owned(None), [Claim::Partition(4), Claim::Seat(0)]);
    }

    #[test]
    fn what_is_lost_is_told_once_to_whoever_had_it() {
        let mut claims = Claims::default();
        claims.join(1, 10);
        claims.join(2, 20);
        let owned = claims.acquire(1, Claim::Forwarder).expect("it is free");
        assert!(claims.lose(Claim::Forwarder, &mut Vec::new()));
        assert!(!claims.lose(Claim::Forwarder, &mut Vec::new()));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(claims.poll_lost(1, &mut cx), Poll::Ready(owned));
        assert!(claims.poll_lost(1, &mut cx).is_pending());
        assert!(claims.poll_lost(2, &mut cx).is_pending());
        assert_eq!(claims.close(10), [1]);
        assert!(claims.live() == 1 && !claims.lives(1) && claims.lives(2));
    }
}
