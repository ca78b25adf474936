//! Staying alive and keeping what is owned, on the thread that renews locks.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use longshore_core::{Claim, chaos::Flaw, defaults};
use redis::Cmd;

use super::{Member, ms};
use crate::{
    entry::int,
    lease::Lease,
    link::Links,
    scripts::{self, KEEP},
    site::{Site, patience},
    spread::spread,
};

impl Member {
    /// Renews until it has left; `links` belong to the runtime this runs on.
    pub(crate) async fn keep(self: Arc<Self>, links: Arc<Links>) {
        let kept = async { join(self.renew(&links), self.fence()).await };
        tokio::select! {
            biased;
            () = self.left.cancelled() => {}
            _ = kept => {}
        }
        self.farewell(&links).await;
    }

    async fn renew(&self, links: &Links) {
        loop {
            let now = self.now();
            let (alive_due, due) = {
                let inner = self.inner();
                let due: Vec<_> = inner
                    .leases
                    .values()
                    .filter(|lease| lease.is_due(now))
                    .cloned()
                    .collect();
                let alive_due =
                    inner.alive_for != inner.lock || inner.alive_until <= now + inner.lock * 2 / 3;
                (alive_due, due)
            };
            let beat = async {
                if alive_due && let Err(error) = self.beat(links).await {
                    tracing::debug!(queue = %self.topology.queue, %error, "the worker could not say that it is alive");
                }
            };
            join(beat, self.renew_leases(links, due)).await;
            let _ = tokio::time::timeout(self.tick(), self.changed.notified()).await;
        }
    }

    async fn renew_leases(&self, links: &Links, due: Vec<Arc<Lease>>) {
        if due.is_empty() || Flaw::NoRenewal.on() {
            return;
        }
        let locks: Vec<_> = due.iter().map(|lease| lease.lock()).collect();
        let commands: Vec<_> = due
            .iter()
            .zip(&locks)
            .map(|(lease, lock)| (lease.key.slot, keeping(lease, *lock)))
            .collect();
        let shortest = locks.iter().min().copied().unwrap_or(defaults::LOCK);
        let limit = patience(&self.site.options).min((shortest / 6).max(Duration::from_millis(50)));
        let sent = self.now();
        for (lease, lock) in due.iter().zip(&locks) {
            lease.renewing(sent, *lock);
        }
        let replies = spread(links, &commands, limit).await;
        for ((lease, lock), reply) in due.iter().zip(locks).zip(replies) {
            match reply.as_ref().map(int) {
                Ok(Some(1)) => lease.renewed(sent, lock),
                Ok(Some(0)) => {
                    tracing::warn!(queue = %self.topology.queue, claim = ?lease.ownership.claim, "an ownership is somebody else's now");
                    lease.lose();
                }
                // Tried again until it is no longer certain.
                _ => {
                    tracing::debug!(queue = %self.topology.queue, ?reply, "an ownership could not be renewed")
                }
            }
        }
    }

    /// Ends what may soon be somebody else's, even while no renewal is answered.
    async fn fence(&self) {
        loop {
            let now = self.now();
            let leases: Vec<_> = self.inner().leases.values().cloned().collect();
            for lease in leases.iter().filter(|lease| lease.is_uncertain(now)) {
                tracing::warn!(queue = %self.topology.queue, claim = ?lease.ownership.claim, "an ownership could not be renewed in time and is given up");
                lease.lose();
            }
            drop(leases);
            let _ = tokio::time::timeout(self.tick(), self.sooner.notified()).await;
        }
    }

    /// Best effort: without it everything runs out by itself.
    async fn farewell(&self, links: &Links) {
        let mut commands = vec![(self.members.slot, self.beating(Duration::ZERO))];
        let leases = std::mem::take(&mut self.inner().leases);
        // What was read from a partition may still run here.
        let is_partition = |lease: &Lease| matches!(lease.ownership.claim, Claim::Partition(_));
        for lease in leases.values().filter(|lease| !is_partition(lease)) {
            commands.push((lease.key.slot, self.letting_go(lease)));
        }
        spread(links, &commands, patience(&self.site.options)).await;
    }

    fn tick(&self) -> Duration {
        // Looking more often than renewing keeps the renewals near a third of the lock.
        let tick = self.inner().shortest() / 12;
        tick.clamp(Duration::from_millis(10), Duration::from_secs(2))
    }
}

/// Renews a claim at once. A failure is left to the renewals that follow.
pub(crate) async fn renew_now(site: &Site, links: &Links, lease: &Lease) {
    let lock = lease.lock();
    let sent = site.options.clock.monotonic();
    lease.renewing(sent, lock);
    let limit = patience(&site.options).min(lock / 3);
    let reply = scripts::run(links, lease.key.slot, keeping(lease, lock), limit).await;
    match reply.as_ref().map(int) {
        Ok(Some(1)) => lease.renewed(sent, lock),
        Ok(Some(0)) => lease.lose(),
        _ => {}
    }
}

fn keeping(lease: &Lease, lock: Duration) -> Cmd {
    let mut command = KEEP.call(&[&lease.key.name]);
    command.arg(&lease.owner).arg(ms(lock));
    command
}
