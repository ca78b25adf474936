//! The operator's side: figures of a queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{Admin, DeadLetter, Error, ErrorKind, Name, Result, Stats, Text};
use redis::Value;

use crate::{
    dead_letters::DeadLetters,
    entry::{EntryId, array, bytes, entries, int, lookup, text},
    failure::{checked, refused, unread},
    link::Links,
    names::{GROUP, Keys, RETURNED},
    site::Site,
};

/// Reads figures and dead letters over links of its own: pages of dead letters are large, and no
/// settlement waits behind them.
pub(crate) struct RedisAdmin {
    site: Arc<Site>,
    links: Arc<Links>,
    dead: DeadLetters,
}

/// A consumer seen this recently is alive: each reads twice a second and renews its locks.
const ALIVE: Duration = Duration::from_secs(15);

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
        let keys = Keys::new(&self.site.options.key_prefix, queue);
        let mut pipeline = redis::pipe();
        pipeline.cmd("XLEN").arg(&keys.stream);
        pipeline.cmd("XPENDING").arg(&keys.stream).arg(GROUP);
        pipeline.cmd("ZCARD").arg(&keys.delayed);
        pipeline.cmd("XLEN").arg(&keys.dead);
        pipeline
            .cmd("XINFO")
            .arg("CONSUMERS")
            .arg(&keys.stream)
            .arg(GROUP);
        pipeline.cmd("XINFO").arg("GROUPS").arg(&keys.stream);
        pipeline
            .cmd("XPENDING")
            .arg(&keys.stream)
            .arg(GROUP)
            .arg("-")
            .arg("+")
            .arg(1)
            .arg(RETURNED);
        pipeline.cmd("TIME");
        let limit = self.site.options.confirm_timeout;
        let replies = self
            .links
            .exchange(keys.slot, &pipeline, limit)
            .await
            .map_err(unread)?;
        if let Some(Value::ServerError(error)) =
            replies.iter().find(|r| matches!(r, Value::ServerError(_)))
        {
            let error = refused(error);
            return Err(match error.kind() {
                ErrorKind::NoSuchQueue | ErrorKind::Rejected => {
                    Error::new(ErrorKind::NoSuchQueue, format!("there is no queue {queue}"))
                }
                _ => error,
            });
        }
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let count = |value: &Value| int(value).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let length = count(&next());
        let pending = array(next());
        let (delayed, dead) = (count(&next()), count(&next()));
        let (consumers, groups, returned, time) = (array(next()), next(), next(), array(next()));

        let returned_count: u64 = pending
            .get(3)
            .cloned()
            .map(array)
            .unwrap_or_default()
            .into_iter()
            .map(array)
            .filter(|row| row.first().cloned().and_then(text).as_deref() == Some(RETURNED))
            .filter_map(|row| row.get(1).map(count))
            .sum();
        let pending = pending.first().map(count).unwrap_or(0);
        let in_flight = pending.saturating_sub(returned_count);
        let alive = consumers.iter().filter(|consumer| {
            let name = lookup(consumer, "name").cloned().and_then(text);
            let idle = lookup(consumer, "idle").map(count).unwrap_or(0);
            name.as_deref() != Some(RETURNED) && u128::from(idle) < ALIVE.as_millis()
        });
        let now = time.first().map(count).unwrap_or(0) * 1000
            + time.get(1).map(count).unwrap_or(0) / 1000;
        let oldest = self.oldest(&keys, groups, returned).await?;
        let mut stats = Stats::default();
        stats.ready = length.saturating_sub(in_flight);
        stats.in_flight = Some(in_flight);
        stats.delayed = Some(delayed);
        stats.dead = dead;
        stats.consumers = Some(alive.count() as u64);
        stats.oldest = oldest.map(|id| Duration::from_millis(now.saturating_sub(id.ms)));
        Ok(stats)
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

impl RedisAdmin {
    /// The oldest entry that waits: the first behind what has been delivered, or one given back.
    async fn oldest(&self, keys: &Keys, groups: Value, returned: Value) -> Result<Option<EntryId>> {
        let ours = array(groups)
            .into_iter()
            .find(|group| lookup(group, "name").cloned().and_then(text).as_deref() == Some(GROUP));
        let delivered = ours.and_then(|group| bytes(lookup(&group, "last-delivered-id")?.clone()));
        let after = delivered.map_or("-".to_owned(), |id| {
            format!("({}", String::from_utf8_lossy(&id))
        });
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("XRANGE")
            .arg(&keys.stream)
            .arg(after)
            .arg("+")
            .arg("COUNT")
            .arg(1);
        let limit = self.site.options.confirm_timeout;
        let reply = self
            .links
            .exchange(keys.slot, &pipeline, limit)
            .await
            .map_err(unread)?
            .pop();
        let waiting = entries(checked(reply.unwrap_or(Value::Nil))?)
            .into_iter()
            .next()
            .map(|entry| entry.id);
        let returned = crate::entry::pending(returned)
            .into_iter()
            .next()
            .map(|row| row.id);
        Ok([waiting, returned].into_iter().flatten().min())
    }
}
