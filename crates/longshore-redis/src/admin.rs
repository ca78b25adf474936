//! The operator's side: figures of a queue.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_core::{Admin, DeadLetter, Name, Result, Stats, Text};

use crate::{dead_letters::DeadLetters, figures, link::Links, site::Site};

/// Reads figures and dead letters over links of its own: pages of dead letters are large, and no
/// settlement waits behind them.
pub(crate) struct RedisAdmin {
    site: Arc<Site>,
    links: Arc<Links>,
    dead: DeadLetters,
}

impl RedisAdmin {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        let links = Arc::new(Links::new(Arc::clone(&site), "admin"));
        let dead = DeadLetters::new(Arc::clone(&site), Arc::clone(&links));
        Self { site, links, dead }
    }

    pub(crate) fn close(&self) {
        self.links.close();
    }
}

#[async_trait]
impl Admin for RedisAdmin {
    async fn stats(&self, queue: &Name) -> Result<Stats> {
        figures::of_queue(&self.links, &self.site.options, queue).await
    }

    async fn dead_letters(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.dead.list(queue, after, limit).await
    }

    async fn redrive(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            answers.push(self.dead.redrive(queue, id).await);
        }
        answers
    }

    async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        self.dead.discard(queue, ids).await
    }
}
