//! One way to do the work.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures_util::future::try_join_all;

use crate::{job::Job, tally::Tally};

/// How a raw client loop goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Every acknowledgement and every confirmation is awaited before the next message.
    OneByOne,
    /// As an expert writes a loop for throughput.
    Best,
    /// As the best, but many tasks publish one message at a time each.
    Tasks,
}

/// Tasks that publish one message each at a time.
const TASKS: u32 = 512;

/// Lets many tasks publish a part of `count` messages each.
pub(crate) async fn shared_out<F>(
    count: u32,
    publish: impl Fn(Range<u32>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let share = |of: u32| count / TASKS * of + (count % TASKS).min(of);
    let tasks = (0..TASKS).map(|task| tokio::spawn(publish(share(task)..share(task + 1))));
    let ended = try_join_all(tasks.collect::<Vec<_>>()).await?;
    ended.into_iter().collect()
}

/// One way to do the work, with its connections open.
#[async_trait]
pub(crate) trait Contestant: Send + Sync {
    /// As it stands in the table.
    fn name(&self) -> &str;

    /// Whether this is a raw client loop, to which Longshore is compared.
    fn is_raw(&self) -> bool;

    /// Whether it does one message after the other, so that fewer will do.
    fn is_slow(&self) -> bool {
        false
    }

    /// Makes the queue, empty as far as that is possible.
    async fn prepare(&self) -> anyhow::Result<()>;

    /// Publishes the jobs 0 to `count` of a run and waits until all are confirmed.
    async fn publish(&self, run: u32, count: u32) -> anyhow::Result<()>;

    /// Publishes one and waits for its confirmation. Many are in flight at a time.
    async fn publish_one(&self, job: Job) -> anyhow::Result<()>;

    /// Handles messages until the tally is complete, and acknowledges them.
    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()>;

    /// Messages that are in the queue now, handled ones that were not acknowledged among them.
    async fn left(&self) -> anyhow::Result<u64>;
}
