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
    meta::Meta,
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
        let prefix = &self.site.options.key_prefix;
        let keys = Keys::new(prefix, queue);
        let limit = self.site.options.confirm_timeout;
        let meta = Meta::read(&self.links, &keys, limit).await?;
        let lanes = meta.lanes.iter();
        let lanes = lanes.map(|lane| Keys::lane(prefix, queue, lane).stream);
        let mut figures = self.figures(queue, &keys, &keys.stream).await?;
        for stream in lanes {
            match self.figures(queue, &keys, &stream).await {
                Ok(of_lane) => figures.add(of_lane),
                // A lane that was deleted by hand holds nothing.
                Err(error) if error.kind() == ErrorKind::NoSuchQueue => {}
                Err(error) => return Err(error),
            }
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(keys.delayed());
        pipeline.cmd("XLEN").arg(keys.dead());
        let replies = self.links.exchange(keys.slot, &pipeline, limit).await;
        let mut replies = replies.map_err(unread)?.into_iter().map(checked);
        let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
        let mut stats = Stats::default();
        stats.delayed = Some(count(&next()?));
        stats.dead = count(&next()?);
        stats.ready = figures.ready;
        stats.in_flight = Some(figures.in_flight);
        stats.consumers = Some(figures.consumers);
        stats.oldest = figures.oldest;
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

/// Figures of one stream.
struct Figures {
    ready: u64,
    in_flight: u64,
    consumers: u64,
    oldest: Option<Duration>,
}

impl Figures {
    /// Together with those of another lane.
    fn add(&mut self, lane: Self) {
        self.ready += lane.ready;
        self.in_flight += lane.in_flight;
        self.consumers += lane.consumers;
        self.oldest = self.oldest.max(lane.oldest);
    }
}

impl RedisAdmin {
    async fn figures(&self, queue: &Name, keys: &Keys, stream: &str) -> Result<Figures> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XLEN").arg(stream);
        pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
        let consumers = pipeline.cmd("XINFO").arg("CONSUMERS");
        consumers.arg(stream).arg(GROUP);
        pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
        let returned = pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
        returned.arg("-").arg("+").arg(1).arg(RETURNED);
        pipeline.cmd("TIME");
        let limit = self.site.options.confirm_timeout;
        let replies = self.links.exchange(keys.slot, &pipeline, limit).await;
        let replies = replies.map_err(unread)?;
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
        let length = count(&next());
        let pending = array(next());
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
        let oldest = self.oldest(keys.slot, stream, groups, returned).await?;
        Ok(Figures {
            ready: length.saturating_sub(in_flight),
            in_flight,
            consumers: alive.count() as u64,
            oldest: oldest.map(|id| Duration::from_millis(now.saturating_sub(id.ms))),
        })
    }

    /// The oldest entry that waits: the first behind what has been delivered, or one given back.
    async fn oldest(
        &self,
        slot: u16,
        stream: &str,
        groups: Value,
        returned: Value,
    ) -> Result<Option<EntryId>> {
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
            .arg(stream)
            .arg(after)
            .arg("+")
            .arg("COUNT")
            .arg(1);
        let limit = self.site.options.confirm_timeout;
        let reply = self
            .links
            .exchange(slot, &pipeline, limit)
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

fn count(value: &Value) -> u64 {
    int(value).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
