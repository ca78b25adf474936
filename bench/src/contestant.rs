//! One way to do the work.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{job::Job, tally::Tally};

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
