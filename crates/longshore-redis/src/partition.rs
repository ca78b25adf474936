//! One owned partition: its stream, consumed in the order of its ids by whoever has its lease. The
//! plain queue of a queue with sessions is consumed alike, by whoever moves its messages.
//!
//! Nothing is taken over by age here and nothing is locked by itself: the lease is the lock, and
//! every script looks at it. How an entry has fared stands in the pending list: its count is the
//! starts noted, its consumer whether and how often it came back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore_core::{Delivery, Part, Receipt, Result, Subscription};
use tokio_util::sync::CancellationToken;

use crate::{
    convert,
    entry::{Entry, EntryId, Pending},
    held::{Held, Table},
    lease::{Lease, Leased},
    link::Links,
    names::{Keys, RETURNED, reply_prefix},
    site::{Site, patience},
};

pub(crate) mod reader;
pub(crate) mod settlement;
pub(crate) mod settler;
pub(crate) mod source;

/// One consumed partition.
pub(crate) struct Partition {
    pub(crate) site: Arc<Site>,
    pub(crate) keys: Keys,
    pub(crate) lease: Arc<Lease>,
    /// Our name in the group, for what we were the first to read.
    pub(crate) consumer: String,
    pub(crate) subscription: Subscription,
    pub(crate) table: Table,
    /// Given back by us: it waits for the next owner.
    pub(crate) released: Mutex<BTreeSet<EntryId>>,
    pub(crate) links: Arc<Links>,
    pub(crate) killed: CancellationToken,
}

/// How an entry has fared before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// Starts noted; 0 where a first start may need no note.
    pub(crate) noted: u64,
    /// How often it came back unexplained.
    pub(crate) returns: u32,
}

impl Past {
    /// A message that nobody has read.
    pub(crate) const NONE: Self = Self {
        noted: 0,
        returns: 0,
    };

    /// How a pending entry has fared before `consumer` came.
    pub(crate) fn of(row: &Pending, consumer: &str) -> Self {
        let (base, returns) = parts(&row.owner);
        // A first read sets 1, and a first start is not noted.
        let first = Self::NONE;
        match base {
            RETURNED if returns == 0 && row.count == 0 => first,
            RETURNED => Self {
                noted: row.count,
                returns,
            },
            // Ours already, though the answer that says so was lost.
            base if base == consumer && row.owner == base && row.count <= 1 => first,
            base if base == consumer => Self {
                noted: row.count,
                returns,
            },
            _ => Self {
                noted: row.count.max(1),
                returns: returns.saturating_add(1),
            },
        }
    }

    /// The count that says so in the pending list of an owner.
    pub(crate) fn count(self) -> u64 {
        self.noted.max(1)
    }

    /// The consumer that says so: `consumer` alone where it is the first to have it.
    pub(crate) fn consumer(self, consumer: &str) -> String {
        match self {
            Self::NONE => consumer.to_owned(),
            Self { returns, .. } => format!("{consumer}:{returns}"),
        }
    }

    /// The consumer and the count for what was read and not handed out: it keeps its past.
    pub(crate) fn unread(self) -> (String, u64) {
        let consumer = match self.returns {
            0 => RETURNED.to_owned(),
            returns => format!("{RETURNED}:{returns}"),
        };
        (consumer, self.noted)
    }
}

/// The name of a consumer, and how often what it holds came back.
fn parts(consumer: &str) -> (&str, u32) {
    let parts = consumer.rsplit_once(':');
    let parts = parts.and_then(|(base, returns)| Some((base, returns.parse().ok()?)));
    parts.unwrap_or((consumer, 0))
}

impl Partition {
    /// `number` tells the subscriptions under one lease apart.
    pub(crate) fn new(
        (site, links): (Arc<Site>, Arc<Links>),
        subscription: Subscription,
        (lease, number): (Arc<Lease>, u32),
        killed: CancellationToken,
    ) -> Result<Self> {
        let prefix = &site.options.key_prefix;
        let keys = Keys::of(prefix, &subscription.topology, subscription.part)?;
        let scope = (site.options.ids.next() >> 64) as u64;
        let window = match subscription.part {
            Part::Lane(_) => subscription.prefetch,
            _ => subscription.topology.partition_prefetch,
        };
        Ok(Self {
            keys,
            consumer: format!("{}.{number}", lease.owner),
            lease,
            table: Table::new(scope, window),
            released: Mutex::default(),
            subscription,
            site,
            links,
            killed,
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.site.options.clock.monotonic()
    }

    pub(crate) fn patience(&self) -> Duration {
        patience(&self.site.options)
    }

    pub(crate) fn released(&self) -> std::sync::MutexGuard<'_, BTreeSet<EntryId>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries in, in this order.
    pub(crate) async fn arrive(&self, reserved: usize, entries: Vec<(Entry, Past)>) {
        let prefix = reply_prefix(&self.site.options.key_prefix);
        let limits = &self.subscription.limits;
        let mut pasts = Vec::with_capacity(entries.len());
        let mut deliveries = Vec::with_capacity(entries.len());
        for (entry, past) in entries {
            let read = convert::read(&entry.fields, limits, &prefix);
            let noted = u32::try_from(past.noted).unwrap_or(u32::MAX);
            let attempt = read.attempts.saturating_add(noted).saturating_add(1);
            let held = Held {
                id: entry.id,
                attempt,
                base: past.noted,
                alone: false,
                // The lease is what lasts.
                certain_until: Duration::MAX,
                settling: false,
            };
            let delivery = Delivery {
                envelope: read.envelope,
                receipt: Receipt {
                    scope: 0,
                    tag: [0, 0],
                },
                part: self.subscription.part,
                attempt,
                suspect: past.returns > 0,
                alone: past.returns >= self.subscription.suspect_returns.max(1),
                standing: read.standing,
                defect: read.defect,
            };
            pasts.push((entry.id, past));
            deliveries.push((held, delivery));
        }
        let refused = self.table.arrive(reserved, deliveries);
        if !refused.is_empty() {
            // All of them: it is stopped.
            settlement::give_back(self, &pasts).await;
        }
    }
}

impl Leased for Partition {
    fn lose(&self) {
        self.table.lose_all();
    }

    fn is_left(&self) -> bool {
        self.table.lock().abandoned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: &str, count: u64) -> Pending {
        Pending {
            id: EntryId { ms: 1, sequence: 0 },
            owner: owner.to_owned(),
            count,
        }
    }

    #[test]
    fn what_is_written_by_one_owner_is_read_by_the_next() {
        let past = |owner, count| Past::of(&row(owner, count), "b.1");
        let of = |noted, returns| Past { noted, returns };
        // Read by an owner who died, once and again.
        assert_eq!(past("a.1", 1), of(1, 1));
        assert_eq!(past("a.1:1", 1), of(1, 2));
        assert_eq!(past("a.1", 3), of(3, 1));
        // Another subscription of the same owner is another life.
        assert_eq!(past("b.2", 1), of(1, 1));
        // Handed back.
        assert_eq!(past(RETURNED, 0), Past::NONE);
        assert_eq!(past(RETURNED, 2), of(2, 0));
        assert_eq!(past("_returned:2", 1), of(1, 2));
        // Claimed by ourselves, with or without an answer.
        for past in [Past::NONE, of(1, 0), of(1, 1), of(4, 2)] {
            let claimed = row(&past.consumer("b.1"), past.count());
            assert_eq!(Past::of(&claimed, "b.1"), past);
            let (consumer, count) = past.unread();
            assert_eq!(Past::of(&row(&consumer, count), "b.1"), past);
        }
    }
}
