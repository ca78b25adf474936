//! What the tasks of one source share: which stream, as which consumer, under which rules.

use std::{sync::Arc, time::Duration};

use longshore_core::{Delivery, Receipt, Result, Subscription};
use tokio_util::sync::CancellationToken;

use crate::{
    convert,
    entry::{Entry, EntryId},
    held::{Claim, Held, Table},
    link::Links,
    names::{GROUP, Keys, reply_prefix},
    scripts::{self, RELEASE},
    site::{Site, patience},
};

/// One consumed stream.
pub(crate) struct Lane {
    pub(crate) site: Arc<Site>,
    pub(crate) keys: Keys,
    /// Our name in the group. Random, so that no two processes and no two lives share one.
    pub(crate) consumer: String,
    pub(crate) subscription: Subscription,
    pub(crate) table: Table,
    /// For everything that does not block.
    pub(crate) links: Arc<Links>,
    /// Ends the tasks at once, whatever they are doing.
    pub(crate) killed: CancellationToken,
}

impl Lane {
    pub(crate) fn new(
        site: Arc<Site>,
        links: Arc<Links>,
        subscription: Subscription,
        killed: CancellationToken,
    ) -> Result<Self> {
        let ids = &site.options.ids;
        let keys = Keys::of(
            &site.options.key_prefix,
            &subscription.topology,
            subscription.part,
        )?;
        let scope = (ids.next() >> 64) as u64;
        Ok(Self {
            keys,
            consumer: ids.text().to_string(),
            table: Table::new(scope, subscription.prefetch),
            subscription,
            site,
            links,
            killed,
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.site.options.clock.monotonic()
    }

    pub(crate) fn lock_ms(&self) -> u64 {
        u64::try_from(self.subscription.lock.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        patience(&self.site.options)
    }

    /// Takes entries in. `sent` is when the command that locked them was sent: counted from there,
    /// their locks last at least as long on the server's clock.
    pub(crate) async fn arrive(
        &self,
        reserved: usize,
        sent: Duration,
        entries: Vec<(Entry, Claim)>,
    ) {
        let prefix = reply_prefix(&self.site.options.key_prefix);
        let limits = &self.subscription.limits;
        let mut deliveries = Vec::with_capacity(entries.len());
        let (topology, part) = (&self.subscription.topology, self.subscription.part);
        for (entry, claim) in entries {
            let mut read = convert::read(&entry.fields, limits, &prefix);
            read.envelope.priority = topology.priority_in(part, read.envelope.priority.take());
            let noted = u32::try_from(claim.base).unwrap_or(u32::MAX);
            let attempt = read.attempts.saturating_add(noted).saturating_add(1);
            let held = Held {
                id: entry.id,
                attempt,
                base: claim.base,
                alone: claim.alone,
                certain_until: sent + self.subscription.lock,
                settling: false,
            };
            let delivery = Delivery {
                envelope: read.envelope,
                receipt: Receipt {
                    scope: 0,
                    tag: [0, 0],
                },
                part,
                attempt,
                suspect: claim.suspect,
                alone: false,
                standing: read.standing,
                defect: read.defect,
            };
            deliveries.push((held, delivery));
        }
        let refused = self.table.arrive(reserved, deliveries);
        if !refused.is_empty() {
            let refused: Vec<_> = refused.iter().map(|held| (held.id, held.base)).collect();
            self.give_back(&refused).await;
        }
    }

    /// Gives back what arrived too late to be taken, each with the starts noted before.
    pub(crate) async fn give_back(&self, entries: &[(EntryId, u64)]) {
        let mut command = RELEASE.call(&[&self.keys.stream]);
        command.arg(GROUP).arg(&self.consumer);
        for (id, base) in entries {
            command.arg(id.to_string()).arg(*base);
        }
        let limit = self.patience();
        if let Err(broken) = scripts::run(&self.links, self.keys.slot, command, limit).await {
            tracing::warn!(
                count = entries.len(),
                error = %broken.into_error(),
                "messages could not be given back and wait for their lock to end"
            );
        }
    }
}
