//! The operator's side: figures, and dead letters to read, send back and throw away.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use async_trait::async_trait;
use lapin::{
    BasicProperties,
    types::{FieldTable, ShortString},
};
use longshore_core::{
    Admin, Clock, DeadLetter, Declare, Defect, Envelope, Error, ErrorKind, Limits, Name, Part,
    Reason, Result, Stats, Text, Topology, chaos::CrashPoint, partition_of,
};

use crate::{
    convert::{Arrived, Native, arrived, short},
    copy::{obituary, restored},
    dead_letters::{Found, Reader},
    headers,
    link::Link,
    lookout::Lookout,
    names,
    objects::{Figures, declare_queue},
    parts::Parts,
    prepared::is_missing,
    publisher::{Letter, Publisher},
    reply_rule::ReplyRule,
    session::{Dialer, Session},
    topology::numbers,
};

/// Figures and dead letters, as far as AMQP gives them.
pub(crate) struct AmqpAdmin {
    pub(crate) dialer: Dialer,
    pub(crate) parts: Arc<Parts>,
    pub(crate) publishing: Arc<Link>,
    pub(crate) copies: Arc<Publisher>,
    pub(crate) replies: ReplyRule,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lookout: Arc<Lookout>,
}

/// Bodies listed at a time, together.
const LISTED_BYTES: usize = 64 * 1024 * 1024;

impl AmqpAdmin {
    fn read(&self, found: Found, marker: &str) -> (Text, Arrived) {
        let now = self.clock.wall();
        let (properties, body) = (found.properties, found.body);
        let read = arrived(properties, body, marker, None, &self.replies, now);
        (found.id, read)
    }

    /// The connection to look for queues on. Waits where the broker is away, and knows whether the
    /// client was closed.
    async fn looking(&self) -> Result<Arc<Session>> {
        self.publishing.session().await?;
        self.lookout.session().await
    }

    /// How many partitions a queue has; 0 without sessions.
    async fn partitions(&self, queue: &Name) -> Result<u16> {
        if let Some(partitions) = self.parts.partitions(queue) {
            return Ok(partitions);
        }
        let session = self.looking().await?;
        let found = numbers(&session, queue).await?;
        let in_use = |figures: &[Figures]| figures.iter().any(|f| f.ready + f.consumers > 0);
        let used: Vec<u16> = found
            .iter()
            .filter(|(_, figures)| in_use(figures))
            .map(|(of, _)| *of)
            .collect();
        match (&found[..], &used[..]) {
            ([], _) => Ok(0),
            ([(of, _)], _) | (_, [of]) => Ok(*of),
            _ => Err(Error::new(
                ErrorKind::TopologyDiffers,
                format!(
                    "\"{queue}\" had several numbers of partitions; declare it with the one it has now"
                ),
            )),
        }
    }

    /// Sends one dead letter back to this queue, which has so many partitions; the answer is the
    /// broker's confirm.
    async fn send_back(&self, queue: &Name, of: u16, envelope: &Envelope) -> Result<()> {
        let native = Native::of(envelope).filter(|native| native.blanked.is_none());
        let native = native.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "this dead letter is too large or too deeply nested to be read safely, so it cannot \
                 be sent back unaltered; it can only be discarded",
            )
        })?;
        let properties = restored(&native.properties, &self.dialer.address.credentials.user);
        if let (1.., Some(key)) = (of, &envelope.key) {
            let index = partition_of(key, of);
            let partition = Part::Partition { index, of };
            let partition = names::part(&Topology::new(queue.clone()), partition)?;
            return self.send(&partition, &properties, envelope).await;
        }
        let lane = lane(queue, envelope, &native.properties);
        let physical = lane.as_deref().unwrap_or(queue);
        match self.send(physical, &properties, envelope).await {
            // It came by a topic and this queue has no such lane, or not any more.
            Err(error) if is_missing(&error) && lane.is_some() => {
                self.send(queue, &properties, envelope).await
            }
            answer => answer,
        }
    }

    async fn send(
        &self,
        physical: &str,
        properties: &BasicProperties,
        envelope: &Envelope,
    ) -> Result<()> {
        let letter = Letter {
            exchange: ShortString::default(),
            routing_key: short("queue name", physical)?,
            mandatory: true,
            properties: properties.clone(),
            body: envelope.body.clone(),
        };
        let answer = self.copies.publish(vec![letter]).await.pop();
        answer.unwrap_or_else(|| Err(crate::error::closed()))
    }

    /// Finds each of these dead letters and does something with it. What `done` allows is removed.
    async fn each(&self, queue: &Name, ids: &[Text], send_back: bool) -> Vec<Result<()>> {
        let opened = async {
            let of = match send_back {
                true => self.partitions(queue).await?,
                false => 0,
            };
            Ok((of, Reader::open(&self.dialer, queue).await?))
        };
        let (of, mut reader) = match opened.await {
            Ok(opened) => opened,
            Err::<_, Error>(error) => {
                let again = |_| Err(error.again());
                return ids.iter().map(again).collect();
            }
        };
        let mut answers: Vec<Option<Result<()>>> = ids.iter().map(|_| None).collect();
        let mut failed = None;
        while answers.iter().any(Option::is_none) {
            let found = match reader.next().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let wanted = ids.iter().zip(answers.iter_mut());
            let place = wanted
                .filter(|(id, answer)| **id == found.id && answer.is_none())
                .map(|(_, answer)| answer)
                .next();
            let Some(place) = place else { continue };
            let tag = found.tag;
            let (_, read) = self.read(found, reader.marker());
            let mut answer = match send_back {
                true => {
                    let sent = self.send_back(queue, of, &read.envelope).await;
                    sent.inspect(|()| CrashPoint::RedriveCopied.reached())
                }
                false => Ok(()),
            };
            if answer.is_ok() {
                answer = reader.remove(tag).await;
            }
            *place = Some(answer);
        }
        if let Err(error) = reader.close().await {
            failed.get_or_insert(error);
        }
        let missing = || match &failed {
            Some(error) => error.again(),
            None => Error::new(
                ErrorKind::Stale,
                "no such dead letter among the oldest 1,000",
            ),
        };
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(|| Err(missing())))
            .collect()
    }
}

/// The physical queue of the lane a dead letter came from, where that is not the normal one. The broker
/// says it of what it moved itself, every copy of ours says it in its priority.
fn lane(queue: &Name, envelope: &Envelope, properties: &BasicProperties) -> Option<String> {
    let moved = obituary(properties).queue;
    let moved = moved
        .as_deref()
        .and_then(|from| names::lane_of(queue, from));
    // Whatever else a publisher wrote there names no lane.
    let lane = names::lane_name(moved.or(envelope.priority.as_deref())?).ok()?;
    Some(names::lane(queue, &lane))
}

/// A dead letter as an operator sees it.
fn told(id: Text, read: Arrived) -> DeadLetter {
    let native = Native::of(&read.envelope);
    let none = Default::default();
    let properties = native.as_ref().map_or(&none, |native| &native.properties);
    let obituary = obituary(properties);
    let (reason, detail) = match (obituary.reason, &read.defect) {
        (Some(reason), _) => (reason, obituary.detail),
        (None, Some(Defect { reason, detail })) => (reason.clone(), detail.clone()),
        (None, None) => derived(
            obituary.brokers.as_deref(),
            &read.envelope,
            properties.headers(),
        ),
    };
    let mut letter = DeadLetter::new(id, read.envelope, reason);
    letter.detail = detail;
    letter.attempts = obituary.attempts;
    letter.at = obituary
        .at
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    letter.redrivable = read.defect.is_none();
    letter
}

/// Why the broker moved a message itself, from what it noted and what is seen.
fn derived(
    brokers: Option<&str>,
    envelope: &Envelope,
    table: &Option<FieldTable>,
) -> (Reason, String) {
    let limits = Limits::default();
    match brokers {
        Some("expired") => (Reason::Expired, "it expired in the queue".to_owned()),
        Some("delivery_limit") => {
            let detail = "the broker's limit of returns was reached";
            (Reason::Crashed, detail.to_owned())
        }
        Some("rejected") | None => {
            if let Err(defect) = limits.check(envelope) {
                return (defect.reason, defect.detail);
            }
            let (depth, size) = match table {
                Some(table) => (headers::depth(table), headers::table_size(table)),
                None => (0, 0),
            };
            if depth > limits.header_depth {
                let detail = "the headers are nested deeper than the limit";
                return (Reason::Hostile, detail.to_owned());
            }
            // It broke a limit of its worker that is tighter than ours; the heavier part was it.
            let body = envelope.body.len();
            let reason = match size > body {
                true => Reason::Hostile,
                false => Reason::TooLarge,
            };
            let detail = format!("a worker refused {size} bytes of headers and {body} of body");
            (reason, detail)
        }
        Some(other) => {
            let detail = format!("the broker moved it here: {other}");
            (Reason::parse(other), detail)
        }
    }
}

#[async_trait]
impl Admin for AmqpAdmin {
    /// Of the plain queue, its partitions, and the lanes this client has declared, consumed or
    /// published to.
    async fn stats(&self, queue: &Name) -> Result<Stats> {
        let session = self.looking().await?;
        let figures = async |name: &str| {
            declare_queue(&session, name, FieldTable::default(), Declare::Verify).await
        };
        let mut parts = vec![figures(queue).await?];
        for part in self.parts.of(queue) {
            match figures(&part).await {
                Ok(part) => parts.push(part),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let partitions = numbers(&session, queue).await?;
        parts.extend(partitions.into_iter().flat_map(|(_, figures)| figures));
        let quarantine = figures(&names::quarantine(queue)).await?;
        let dead = figures(&names::dead(queue)).await?;
        let mut stats = Stats::default();
        stats.ready = parts.iter().map(|part| part.ready).sum::<u64>() + quarantine.ready;
        stats.dead = dead.ready;
        stats.consumers = Some(parts.iter().map(|part| part.consumers).sum());
        Ok(stats)
    }

    async fn dead_letters(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        if limit == 0 {
            return Ok(letters);
        }
        let mut reader = Reader::open(&self.dialer, queue).await?;
        let mut passed = after.is_none();
        let mut bytes = 0;
        while letters.len() < limit && bytes < LISTED_BYTES {
            let Some(found) = reader.next().await? else {
                break;
            };
            if !passed {
                passed = after == Some(&found.id);
                continue;
            }
            let (id, read) = self.read(found, reader.marker());
            bytes += read.envelope.body.len();
            letters.push(told(id, read));
        }
        reader.close().await?;
        Ok(letters)
    }

    async fn redrive(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        self.each(queue, ids, true).await
    }

    async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        self.each(queue, ids, false).await
    }
}
