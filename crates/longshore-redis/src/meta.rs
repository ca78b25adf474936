//! What a queue is made of, for those who only know its name: written when it is declared.

use std::{collections::BTreeSet, time::Duration};

use longshore_core::{Result, Topology};
use redis::Value;

use crate::{
    entry::text,
    failure::{checked, unread},
    link::Links,
    names::{Keys, lane_field},
    scripts::whole_ms,
};

const PARTITIONS: &str = "partitions";
const DEDUP: &str = "dedup";

/// What [`Keys::meta`] holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Lanes beside the normal one. Ever declared: none is forgotten.
    pub(crate) lanes: BTreeSet<String>,
    /// 0 where there are none.
    pub(crate) partitions: u16,
    /// The window for which publishers take ids.
    pub(crate) dedup: Option<Duration>,
}

impl Meta {
    /// Of a queue as it is declared.
    pub(crate) fn of(topology: &Topology) -> Self {
        Self {
            lanes: topology.lanes.iter().map(ToString::to_string).collect(),
            partitions: topology.partitions,
            dedup: topology.dedup_window,
        }
    }

    /// Reads it. A queue without has the normal lane alone.
    pub(crate) async fn read(links: &Links, keys: &Keys, limit: Duration) -> Result<Self> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(keys.meta());
        let replies = links.exchange(keys.slot, &pipeline, limit).await;
        let reply = replies.map_err(unread)?.pop().unwrap_or(Value::Nil);
        Ok(Self::parse(checked(reply)?))
    }

    pub(crate) fn parse(reply: Value) -> Self {
        let pairs: Vec<(Value, Value)> = match reply {
            Value::Map(pairs) => pairs,
            Value::Array(flat) => {
                let mut flat = flat.into_iter();
                std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
            }
            _ => Vec::new(),
        };
        let mut meta = Self::default();
        for (name, value) in pairs {
            let (Some(name), Some(value)) = (text(name), text(value)) else {
                continue;
            };
            if let Some(lane) = name.strip_prefix("p.") {
                meta.lanes.insert(lane.to_owned());
            } else if name == DEDUP {
                meta.dedup = value.parse().ok().map(Duration::from_millis);
            } else if name == PARTITIONS {
                let partitions = value.parse().unwrap_or(0u16);
                let sane = partitions.is_power_of_two() && partitions <= 256;
                meta.partitions = if sane { partitions } else { 0 };
            }
        }
        meta
    }

    /// Brings the server's up to this. Writes nothing where nothing differs: a full server refuses
    /// to write even what is there.
    pub(crate) async fn write(&self, links: &Links, keys: &Keys, limit: Duration) -> Result<()> {
        let there = Self::read(links, keys, limit).await?;
        let mut pipeline = redis::pipe();
        let mut changes = false;
        for lane in self.lanes.difference(&there.lanes) {
            pipeline.cmd("HSET").arg(keys.meta());
            pipeline.arg(lane_field(lane)).arg("1");
            changes = true;
        }
        if self.partitions != there.partitions {
            match self.partitions {
                0 => pipeline.cmd("HDEL").arg(keys.meta()).arg(PARTITIONS),
                of => pipeline
                    .cmd("HSET")
                    .arg(keys.meta())
                    .arg(PARTITIONS)
                    .arg(of),
            };
            changes = true;
        }
        let ms = |dedup: &Self| dedup.dedup.map(whole_ms);
        if ms(self) != ms(&there) {
            match ms(self) {
                Some(ms) => pipeline.cmd("HSET").arg(keys.meta()).arg(DEDUP).arg(ms),
                None => pipeline.cmd("HDEL").arg(keys.meta()).arg(DEDUP),
            };
            changes = true;
        }
        if !changes {
            return Ok(());
        }
        let replies = links.exchange(keys.slot, &pipeline, limit).await;
        for reply in replies.map_err(unread)? {
            checked(reply)?;
        }
        Ok(())
    }
}
