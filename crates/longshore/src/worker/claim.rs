//! The life of one claim: taken, used, given back.

use std::sync::Arc;

use longshore_core::{
    Claim, Error, ErrorKind, Membership, Ownership, Part, Result, Subscribed, Subscription, Text,
    Topology,
    chaos::{CrashPoint, Flaw},
};
use tokio::sync::oneshot;

use super::{
    Shared, SharedRef, forward,
    grip::Grip,
    holding::Holding,
    intake::CLOSING,
    tenure,
    window::{Inbox, Order},
};

/// How a claim that was taken ended, where not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody else has it.
    Taken,
    /// It was given back.
    GivenBack,
    /// It was lost, and may be taken again.
    Lost,
}

/// What the life of a claim needs.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) shared: SharedRef,
    pub(super) topology: Arc<Topology>,
    pub(super) membership: Arc<dyn Membership>,
    pub(super) grip: Grip,
}

impl Life {
    /// Takes a partition, has its sessions handled until it has to end, and gives it back:
    ///
    /// 1. Start nothing more of it, so that nothing runs on when it belongs to somebody else.
    /// 2. Let its running handlers finish, and hand back in its place what has not started.
    /// 3. Once all of that is confirmed drop the source, which frees what it holds at the broker.
    /// 4. Release the claim: from here on another may have it.
    ///
    /// A partition that is lost skips all of it: its handlers are cancelled, and what they settle is
    /// stale.
    pub(super) async fn partition(self, index: u16, driver: Inbox) -> Result<End> {
        let of = self.topology.partitions;
        let part = Part::Partition { index, of };
        let Some(ownership) = self.membership.acquire(Claim::Partition(index)).await? else {
            return Ok(End::Taken);
        };
        self.grip.granted(ownership.token);
        CrashPoint::ClaimGranted.reached();
        if self.grip.leave.is_cancelled() {
            return self.give_back(ownership).await;
        }
        let opened = tokio::select! {
            biased;
            () = self.grip.lost.cancelled() => return Ok(End::Lost),
            () = self.grip.leave.cancelled() => return self.give_back(ownership).await,
            tenure = tenure::begin(&self.shared, part, ownership.token) => tenure,
        };
        let opened = match opened {
            Ok(tenure) => self.subscribe(part, ownership).await.map(|s| (tenure, s)),
            Err(error) => Err(error),
        };
        let (tenure, subscribed) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = self.give_back(ownership).await;
                return Err(error);
            }
        };
        let told = Arc::clone(&driver.told);
        let holding = Arc::new(Holding::new(index, tenure, subscribed, told));
        self.shared.holdings.add(&holding);
        let end = self.handle(&holding, ownership, &driver).await;
        self.shared.holdings.remove(&holding);
        end
    }

    async fn handle(
        &self,
        holding: &Arc<Holding>,
        ownership: Ownership,
        driver: &Inbox,
    ) -> Result<End> {
        let tell = |order: fn(Arc<Holding>) -> Order| {
            // A driver that has ended has dropped what it had.
            let _ = driver.orders.send(order(Arc::clone(holding)));
        };
        tell(Order::Open);
        let failed = tokio::select! {
            biased;
            () = self.grip.lost.cancelled(), if !Flaw::LostLockIgnored.on() => {
                tell(Order::Lose);
                return Ok(End::Lost);
            }
            () = self.grip.leave.cancelled() => None,
            why = holding.ended() => Some(why),
        };
        let (done, closed) = oneshot::channel();
        let _ = driver.orders.send(Order::Close(Arc::clone(holding), done));
        tokio::pin!(closed);
        tokio::select! {
            biased;
            () = self.grip.lost.cancelled() => {
                tell(Order::Lose);
                return Ok(End::Lost);
            }
            _ = &mut closed => {}
            () = tokio::time::sleep(CLOSING) => {
                tell(Order::Enough);
                tokio::select! {
                    biased;
                    () = self.grip.lost.cancelled() => {
                        tell(Order::Lose);
                        return Ok(End::Lost);
                    }
                    _ = closed => {}
                }
            }
        }
        CrashPoint::ClaimDrained.reached();
        holding.drop_source();
        let given_back = self.give_back(ownership).await;
        failed.map_or(given_back, |why| Err(unavailable(&why)))
    }

    /// Takes the plain queue, and moves what is there until it has to end.
    pub(super) async fn forwarder(self) -> Result<End> {
        let Some(ownership) = self.membership.acquire(Claim::Forwarder).await? else {
            return Ok(End::Taken);
        };
        self.grip.granted(ownership.token);
        if self.grip.leave.is_cancelled() {
            return self.give_back(ownership).await;
        }
        let moved = match self.subscribe(Part::Lane(0), ownership).await {
            Ok(subscribed) => tokio::select! {
                biased;
                () = self.grip.lost.cancelled() => return Ok(End::Lost),
                moved = forward::run(&self.shared, &self.topology, &self.grip.leave, subscribed) => moved,
            },
            Err(error) => Err(error),
        };
        let given_back = self.give_back(ownership).await;
        moved.and(given_back)
    }

    async fn subscribe(&self, part: Part, ownership: Ownership) -> Result<Subscribed> {
        let Shared {
            client, settings, ..
        } = &*self.shared;
        let subscription = Subscription {
            topology: Arc::clone(&self.topology),
            declare: client.declare_mode(),
            part,
            ownership: Some(ownership),
            prefetch: match part {
                Part::Partition { .. } => self.topology.partition_prefetch,
                _ => settings.prefetch,
            },
            lock: settings.lock,
            suspect_returns: match part {
                Part::Partition { .. } => settings.suspect_returns(),
                // No handler sees it there, so it cannot have hurt one.
                _ => u32::MAX,
            },
            limits: *client.limits(),
        };
        client.transport().subscribe(subscription).await
    }

    async fn give_back(&self, ownership: Ownership) -> Result<End> {
        match self.membership.release(ownership).await {
            Ok(()) => Ok(End::GivenBack),
            // It was lost in that moment.
            Err(error) if error.kind() == ErrorKind::Stale => Ok(End::Lost),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn unavailable(why: &Text) -> Error {
    Error::new(ErrorKind::Unavailable, why.to_string())
}
