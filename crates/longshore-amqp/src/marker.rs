//! What the owner of a partition leaves for the next one.
//!
//! A marker travels on the connection that publishes, so one written for an owner that has just lost
//! its partition may arrive after the next owner's. Nothing is lost by that: the queue keeps the last
//! few, and the one with the highest numbers counts.

use std::{collections::BTreeMap, sync::Arc};

use lapin::{
    BasicProperties, Channel,
    options::{BasicAckOptions, BasicGetOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use longshore_core::{Limits, Result, Text};

use crate::{
    convert::{PERSISTENT, clamped, short},
    guard::FRAME_MAX,
    headers,
    objects::{answered, lasting},
    publisher::Letter,
    session::Session,
};

/// What is known of one message beside what it carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// How often a handler was noted to start; 0 where nobody noted.
    pub(crate) starts: u32,
    /// How often it came back without a word.
    pub(crate) returns: u32,
}

impl Noted {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What is noted of messages, by their ids.
pub(crate) type Notes = BTreeMap<Text, Noted>;

/// One message of a marker queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The fencing token of its writer.
    pub(crate) token: u64,
    /// Which of its writer's markers it is.
    pub(crate) number: u64,
    /// Nothing was running when its writer left.
    pub(crate) clean: bool,
    /// Its writer had not seen everything that was held before it.
    pub(crate) unseen: bool,
    pub(crate) notes: Notes,
}

/// How many markers a queue keeps. An owner has at most one on its way when it loses the partition.
const KEPT: i64 = 8;
/// How many are read at most.
const MOST: u64 = 64;
const KIND: &str = "longshore.marker";
const TOKEN: &str = "token";
const NUMBER: &str = "number";
const CLEAN: &str = "clean";
const UNSEEN: &str = "unseen";
const STARTED: &str = "started";
const RETURNED: &str = "returned";

/// A marker notes as much as one owner can hold; nobody else's limits bound it.
const LIMITS: Limits = Limits {
    body: 0,
    headers: 64,
    header_bytes: FRAME_MAX,
    header_depth: 8,
    name_bytes: 255,
};

/// The arguments of a marker queue.
pub(crate) fn arguments() -> FieldTable {
    let mut table = lasting();
    table.insert("x-max-length".into(), AMQPValue::LongLongInt(KEPT));
    table
}

impl Marker {
    pub(crate) fn letter(&self, queue: &str) -> Result<Letter> {
        let number = |n: u64| AMQPValue::LongLongInt(i64::try_from(n).unwrap_or(i64::MAX));
        let mut table = FieldTable::default();
        table.insert(TOKEN.into(), number(self.token));
        table.insert(NUMBER.into(), number(self.number));
        table.insert(CLEAN.into(), AMQPValue::Boolean(self.clean));
        table.insert(UNSEEN.into(), AMQPValue::Boolean(self.unseen));
        let (mut started, mut returned) = (FieldTable::default(), FieldTable::default());
        for (id, noted) in &self.notes {
            for (counted, count) in [(&mut started, noted.starts), (&mut returned, noted.returns)] {
                if count > 0 {
                    counted.insert(short("id", id)?, number(count.into()));
                }
            }
        }
        table.insert(STARTED.into(), AMQPValue::FieldTable(started));
        table.insert(RETURNED.into(), AMQPValue::FieldTable(returned));
        Ok(Letter {
            exchange: ShortString::default(),
            routing_key: short("queue name", queue)?,
            mandatory: true,
            properties: BasicProperties::default()
                .with_type(KIND.into())
                .with_delivery_mode(PERSISTENT)
                // What comes back as unroutable is told by its id.
                .with_message_id(format!("{}-{}", self.token, self.number).into())
                .with_headers(table),
            body: Default::default(),
        })
    }

    /// Whatever else somebody has put there is no marker.
    pub(crate) fn read(properties: &BasicProperties) -> Option<Self> {
        if properties.kind().as_ref()?.as_str() != KIND {
            return None;
        }
        let table = properties.headers().as_ref()?;
        let mut notes = Notes::new();
        let mut count = |name: &str, set: fn(&mut Noted, u32)| {
            if let Some(AMQPValue::FieldTable(counted)) = table.inner().get(name) {
                for (id, value) in counted {
                    let noted = notes.entry(id.as_str().into()).or_default();
                    set(noted, headers::integer(value).map_or(0, clamped));
                }
            }
        };
        count(STARTED, |noted, starts| noted.starts = starts);
        count(RETURNED, |noted, returns| noted.returns = returns);
        // Nothing is never written, so whoever wrote it must not make it say more than a missing one.
        notes.retain(|_, noted| !noted.is_nothing());
        let yes = |name: &str| table.inner().get(name) == Some(&AMQPValue::Boolean(true));
        Some(Self {
            token: headers::number(table, TOKEN)?,
            number: headers::number(table, NUMBER).unwrap_or_default(),
            clean: yes(CLEAN),
            unseen: yes(UNSEEN),
            notes,
        })
    }
}

/// The markers of a partition, held by whoever has its lock.
pub(crate) struct Markers {
    /// Whatever is not removed goes back when this closes.
    channel: Channel,
    queue: ShortString,
    last: Option<u64>,
    /// The one that counts.
    pub(crate) newest: Option<Marker>,
}

impl Markers {
    /// Takes all there are. Those with a larger token than `most` are none.
    ///
    /// # Errors
    /// [`NoSuchQueue`](longshore_core::ErrorKind::NoSuchQueue) and what is transient.
    pub(crate) async fn take(session: &Arc<Session>, queue: &str, most: u64) -> Result<Self> {
        let channel = session.channel().await?;
        session.watch.limit(channel.id(), LIMITS);
        let mut markers = Self {
            channel,
            queue: short("queue name", queue)?,
            last: None,
            newest: None,
        };
        let doing = format!("reading \"{queue}\"");
        loop {
            let get = BasicGetOptions::default();
            let got = markers.channel.basic_get(markers.queue.clone(), get);
            let Some(message) = answered(&doing, queue, got).await? else {
                return Ok(markers);
            };
            markers.last = Some(message.delivery_tag);
            let read = Marker::read(&message.properties);
            if let Some(read) = read.filter(|read| read.token <= most) {
                let of = |marker: &Marker| (marker.token, marker.number);
                if markers.newest.as_ref().map(of) < Some(of(&read)) {
                    markers.newest = Some(read);
                }
            }
            // Whoever fills the queue while it is read must not keep us here.
            if message.delivery_tag >= MOST {
                return Ok(markers);
            }
        }
    }

    /// Removes them, once a newer one is confirmed.
    pub(crate) async fn remove(self) -> Result<()> {
        let Some(last) = self.last else {
            return Ok(());
        };
        let options = BasicAckOptions { multiple: true };
        let doing = format!("removing what is old from \"{}\"", self.queue);
        let acknowledged = self.channel.basic_ack(last, options);
        answered(&doing, self.queue.as_str(), acknowledged).await?;
        // Dropping the channel could overtake it.
        let closed = self.channel.close(200, "done".into());
        answered(&doing, self.queue.as_str(), closed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_as_it_was_written() {
        let noted = |starts, returns| Noted { starts, returns };
        let notes = [("a", noted(2, 0)), ("ü b", noted(0, 1)), ("c", noted(7, 3))];
        let marker = Marker {
            token: 41,
            number: 7,
            clean: true,
            unseen: true,
            notes: notes.map(|(id, noted)| (id.into(), noted)).into(),
        };
        let letter = marker.letter("orders.s16.03.marker").expect("a letter");
        assert_eq!(Marker::read(&letter.properties), Some(marker));
        let mut nothing = FieldTable::default();
        nothing.insert("a".into(), AMQPValue::LongLongInt(0));
        let mut table = FieldTable::default();
        table.insert(TOKEN.into(), AMQPValue::LongLongInt(1));
        table.insert(STARTED.into(), AMQPValue::FieldTable(nothing));
        let of_nothing = BasicProperties::default().with_type(KIND.into());
        let read = Marker::read(&of_nothing.with_headers(table)).expect("a marker");
        assert_eq!(read.notes, Notes::new());
        let plain = BasicProperties::default().with_headers(FieldTable::default());
        assert_eq!(Marker::read(&plain), None);
    }
}
