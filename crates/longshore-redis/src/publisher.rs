//! Publishing: one write per batch and server, one answer per message.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use longshore_core::{Destination, Error, ErrorKind, Name, Outgoing, Published, Result, defaults};
use redis::{Cmd, Pipeline, Value};

use crate::{
    address::Kind,
    convert,
    entry::{array, int, text},
    failure::{Broken, refused, unexpected},
    link::Links,
    names::{Keys, supported, topic_key},
    scripts::{self, DELAY},
    site::Site,
};

/// Publishes over links of its own.
pub(crate) struct Publisher {
    site: Arc<Site>,
    links: Links,
}

type Answer = Result<Published>;

/// Messages of one slot that travel in one write.
#[derive(Default)]
struct Chunk {
    indexes: Vec<usize>,
    bytes: usize,
    pipeline: Pipeline,
}

const CHUNK: usize = 2000;
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

impl Publisher {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self {
            links: Links::new(Arc::clone(&site), "publish"),
            site,
        }
    }

    pub(crate) fn close(&self) {
        self.links.close();
    }

    /// One answer per message, in order.
    pub(crate) async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        // Chunks of one slot follow each other, which keeps the order of a queue.
        let mut by_slot: BTreeMap<u16, Vec<Chunk>> = BTreeMap::new();
        let mut topics = Vec::new();
        for (index, message) in batch.iter().enumerate() {
            match self.command(message) {
                Ok(Some((slot, command))) => {
                    let slot = if self.is_cluster() { slot } else { 0 };
                    let chunks = by_slot.entry(slot).or_default();
                    let full =
                        |chunk: &Chunk| chunk.indexes.len() >= CHUNK || chunk.bytes >= CHUNK_BYTES;
                    if chunks.last().is_none_or(full) {
                        chunks.push(Chunk::default());
                    }
                    if let Some(chunk) = chunks.last_mut() {
                        chunk.indexes.push(index);
                        chunk.bytes += message.envelope.body.len();
                        chunk.pipeline.add_command(command);
                    }
                }
                Ok(None) => topics.push(index),
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        let slots = by_slot.into_iter().map(|(slot, chunks)| async move {
            let mut answers = Vec::new();
            for chunk in chunks {
                let replies = self.send(slot, &chunk.pipeline).await;
                let stored = replies
                    .into_iter()
                    .map(|reply| reply.and_then(|reply| stored(&reply)));
                answers.extend(chunk.indexes.into_iter().zip(stored));
            }
            answers
        });
        for (index, answer) in join_all(slots).await.into_iter().flatten() {
            answers[index] = Some(answer);
        }
        for index in topics {
            if let Destination::Topic(topic) = &batch[index].to {
                answers[index] = Some(self.publish_to_topic(topic, &batch[index]).await);
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(unexpected())))
            .collect()
    }

    /// The command for a message to one queue; `None` for a topic.
    fn command(&self, message: &Outgoing) -> Result<Option<(u16, Cmd)>> {
        if message.delay > defaults::LONGEST_DELAY {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a delay is at most 366 days",
            ));
        }
        match &message.to {
            Destination::Queue(queue, part) => {
                supported(*part)?;
                Ok(Some(self.command_to(queue, message)))
            }
            Destination::Topic(_) => Ok(None),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "this transport has no request/reply yet",
            )),
        }
    }

    fn command_to(&self, queue: &Name, message: &Outgoing) -> (u16, Cmd) {
        let keys = Keys::new(&self.site.options.key_prefix, queue);
        let command = if message.delay.is_zero() {
            let mut command = redis::cmd("XADD");
            command.arg(&keys.stream).arg("NOMKSTREAM").arg("*");
            convert::add_fields(&mut command, &message.envelope);
            command
        } else {
            let mut command = DELAY.call(&[&keys.delayed, &keys.wake, &keys.stream]);
            let name = format!("p{}", self.site.options.ids.text());
            command
                .arg(whole_ms(message.delay))
                .arg(convert::pack(&message.envelope, &name));
            command
        };
        (keys.slot, command)
    }

    /// One answer per command. A script that the server does not have is loaded and only its
    /// commands are sent again: an unknown script has done nothing.
    async fn send(&self, slot: u16, pipeline: &Pipeline) -> Vec<Result<Value>> {
        let mut replies = self.send_once(slot, pipeline).await;
        let is_unknown =
            |reply: &Result<Value>| matches!(reply, Ok(reply) if scripts::is_unknown(reply));
        if !replies.iter().any(is_unknown) {
            return replies;
        }
        if let Err(broken) =
            scripts::load(&self.links, slot, self.site.options.confirm_timeout).await
        {
            tracing::debug!(error = %broken.into_error(), "scripts could not be loaded");
            return replies;
        }
        let mut again = Pipeline::new();
        for (command, _) in pipeline
            .cmd_iter()
            .zip(&replies)
            .filter(|(_, reply)| is_unknown(reply))
        {
            again.add_command(command.clone());
        }
        let mut repeated = self.send_once(slot, &again).await.into_iter();
        for reply in replies.iter_mut().filter(|reply| is_unknown(reply)) {
            *reply = repeated.next().unwrap_or_else(|| Err(unexpected()));
        }
        replies
    }

    async fn send_once(&self, slot: u16, pipeline: &Pipeline) -> Vec<Result<Value>> {
        match self
            .links
            .exchange(slot, pipeline, self.site.options.confirm_timeout)
            .await
        {
            Ok(mut replies) => {
                replies.resize(pipeline.len(), Value::Nil);
                replies.into_iter().map(Ok).collect()
            }
            Err(broken) => {
                let error = broken.into_error();
                let again = || Error::new(error.kind(), error.to_string());
                (0..pipeline.len()).map(|_| Err(again())).collect()
            }
        }
    }

    async fn send_one(&self, slot: u16, command: Cmd) -> Result<Value> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command);
        self.send(slot, &pipeline)
            .await
            .pop()
            .unwrap_or_else(|| Err(unexpected()))
    }

    async fn publish_to_topic(&self, topic: &Name, message: &Outgoing) -> Answer {
        let (key, slot) = topic_key(&self.site.options.key_prefix, topic);
        let mut members = redis::cmd("SMEMBERS");
        members.arg(&key);
        let reply = match self.send_one(slot, members).await {
            // Nothing was published yet.
            Err(error) if error.kind() == ErrorKind::Unknown => {
                return Err(Error::new(ErrorKind::Unavailable, error.to_string()));
            }
            reply => reply?,
        };
        if let Value::ServerError(error) = &reply {
            return Err(refused(error));
        }
        let mut queues: Vec<Name> = array(reply)
            .into_iter()
            .filter_map(text)
            .filter_map(|name| Name::new(name).ok())
            .collect();
        queues.sort();
        let commands: Vec<_> = queues
            .iter()
            .map(|queue| self.command_to(queue, message))
            .collect();
        if self.is_cluster() {
            self.one_by_one(topic, commands).await
        } else {
            self.at_once(topic, commands).await
        }
    }

    /// All copies in one transaction.
    async fn at_once(&self, topic: &Name, commands: Vec<(u16, Cmd)>) -> Answer {
        for try_number in 0..2 {
            let mut batch = redis::pipe();
            batch.cmd("MULTI");
            for (_, command) in &commands {
                batch.add_command(command.clone());
            }
            batch.cmd("EXEC");
            let mut replies = self
                .send_once(0, &batch)
                .await
                .into_iter()
                .collect::<Result<Vec<_>>>()?;
            let outcome = replies.pop().unwrap_or(Value::Nil);
            let refusal = replies.iter().find_map(|reply| match reply {
                Value::ServerError(error) => Some(refused(error)),
                _ => None,
            });
            if let Value::ServerError(error) = &outcome {
                // The transaction was not carried out; why, was said when a command was queued.
                return Err(refusal.unwrap_or_else(|| refused(error)));
            }
            let outcomes = array(outcome);
            if try_number == 0 && !outcomes.is_empty() && outcomes.iter().all(scripts::is_unknown) {
                let limit = self.site.options.confirm_timeout;
                scripts::load(&self.links, 0, limit)
                    .await
                    .map_err(Broken::into_error)?;
                continue;
            }
            return any_stored(topic, outcomes.iter().map(stored));
        }
        Err(unexpected())
    }

    /// One copy after the other; publishing again with the same id completes what a failure left.
    async fn one_by_one(&self, topic: &Name, commands: Vec<(u16, Cmd)>) -> Answer {
        let mut answers = Vec::with_capacity(commands.len());
        for (slot, command) in commands {
            let reply = self.send_one(slot, command).await;
            answers.push(reply.and_then(|reply| stored(&reply)));
        }
        any_stored(topic, answers.into_iter())
    }

    fn is_cluster(&self) -> bool {
        self.site.address.kind == Kind::Cluster
    }
}

/// A queue that is bound but deleted is no queue; any other failure is the answer.
fn any_stored(topic: &Name, answers: impl Iterator<Item = Answer>) -> Answer {
    let mut stored = 0;
    for answer in answers {
        match answer {
            Ok(_) => stored += 1,
            Err(error) if error.kind() == ErrorKind::NoSuchQueue => {}
            // Some queues may have their copy.
            Err(error) if stored > 0 => {
                return Err(Error::new(ErrorKind::Unknown, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    if stored == 0 {
        let text = format!("no queue is bound to the topic {topic}; declare a queue with it first");
        return Err(Error::new(ErrorKind::NoSuchQueue, text));
    }
    Ok(Published::Accepted)
}

fn stored(reply: &Value) -> Answer {
    match reply {
        Value::ServerError(error) => Err(refused(error)),
        Value::Nil => Err(no_such_queue()),
        reply if int(reply) == Some(0) => Err(no_such_queue()),
        _ => Ok(Published::Accepted),
    }
}

fn no_such_queue() -> Error {
    Error::new(
        ErrorKind::NoSuchQueue,
        "the queue does not exist; declare it first",
    )
}

/// Rounded up: never early.
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
