//! Publishing: one write per batch and server, one answer per message.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use longshore_core::{
    Destination, Envelope, Error, ErrorKind, Name, Outgoing, Part, Published, Result, Topology,
    chaos::{CrashPoint, Flaw},
    defaults,
};
use redis::{Cmd, Pipeline, Value};

use crate::{
    address::Kind,
    convert,
    entry::int,
    failure::{refused, unexpected, unread},
    link::Links,
    mark::expiry_ms,
    names::{Keys, is_reply_address, reply_prefix, slot},
    scripts::{self, Calls, DELAY, PUBLISH, whole_ms},
    site::Site,
};

/// Publishes over links of its own.
pub(crate) struct Publisher {
    pub(crate) site: Arc<Site>,
    pub(crate) links: Links,
}

pub(crate) type Answer = Result<Published>;

/// One command on its way to the server of a slot.
pub(crate) struct Write {
    pub(crate) slot: u16,
    pub(crate) command: Cmd,
    pub(crate) bytes: usize,
}

/// Commands to one server that travel in one write.
#[derive(Default)]
struct Chunk {
    indexes: Vec<usize>,
    bytes: usize,
    pipeline: Pipeline,
}

pub(crate) const CHUNK: usize = 2000;
pub(crate) const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// Replies that wait for a requester who does not read, about.
const REPLIES: usize = 10_000;

/// How long an id stays taken for a message that no worker has got to.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
        let mut calls = BTreeMap::new();
        let (mut indexes, mut writes, mut topics) = (Vec::new(), Vec::new(), Vec::new());
        for (index, message) in batch.iter().enumerate() {
            match self.write_of(message, &mut calls) {
                Ok(Some(write)) => {
                    indexes.push(index);
                    writes.push(write);
                }
                Ok(None) => topics.push(index),
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        let replies = self.send_all(writes).await;
        for (index, reply) in indexes.into_iter().zip(replies) {
            let meant = match batch[index].to {
                Destination::Reply(_) => answered,
                _ => stored,
            };
            answers[index] = Some(match reply {
                Err(error) if error.kind() == ErrorKind::Unknown && Flaw::NoConfirms.on() => {
                    Ok(Published::Accepted)
                }
                reply => reply.and_then(|reply| meant(&reply)),
            });
        }
        if !topics.is_empty() {
            let messages: Vec<_> = topics.iter().map(|index| &batch[*index]).collect();
            for (index, answer) in topics.iter().zip(self.publish_to_topics(&messages).await) {
                answers[*index] = Some(answer);
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(unexpected())))
            .collect()
    }

    /// The command for a message to one place; `None` for a topic.
    fn write_of(
        &self,
        message: &Outgoing,
        calls: &mut BTreeMap<u16, Calls>,
    ) -> Result<Option<Write>> {
        if message.delay > defaults::LONGEST_DELAY {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a delay is at most 366 days",
            ));
        }
        match &message.to {
            Destination::Queue(queue, part) => {
                let keys = self.keys_of(queue, *part, &message.envelope)?;
                let calls = calls.entry(self.server(keys.slot)).or_default();
                Ok(Some(self.write_to(
                    &keys,
                    message,
                    message.dedup_window,
                    calls,
                )))
            }
            Destination::Topic(_) => Ok(None),
            Destination::Reply(address) => self.reply_to(address.as_str(), message).map(Some),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "this transport does not know such a destination",
            )),
        }
    }

    /// The command that answers whoever asked, and makes nothing.
    fn reply_to(&self, address: &str, message: &Outgoing) -> Result<Write> {
        if !is_reply_address(&reply_prefix(&self.site.options.key_prefix), address) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "this is no address for replies; it does not begin as the prefix of this client says",
            ));
        }
        if !message.delay.is_zero() {
            let text = "a reply cannot be delayed";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let mut command = redis::cmd("XADD");
        command.arg(address).arg("NOMKSTREAM");
        command.arg("MAXLEN").arg("~").arg(REPLIES).arg("*");
        convert::add_fields(&mut command, &message.envelope, None);
        Ok(Write {
            slot: slot(address.as_bytes()),
            command,
            bytes: message.envelope.body.len(),
        })
    }

    /// A lane beside the normal one has its name in the message.
    fn keys_of(&self, queue: &Name, part: Part, envelope: &Envelope) -> Result<Keys> {
        let prefix = &self.site.options.key_prefix;
        match part {
            Part::Lane(0) => Ok(Keys::new(prefix, queue)),
            Part::Lane(_) => {
                let lane = envelope.priority.as_deref().unwrap_or_default();
                Ok(Keys::lane(prefix, queue, &Name::new(lane)?))
            }
            part => Ok(Keys::new(prefix, &Topology::new(queue.clone()).scope(part))),
        }
    }

    /// The command that stores a message in one part of a queue, and takes its id where there is a
    /// window and an id.
    pub(crate) fn write_to(
        &self,
        keys: &Keys,
        message: &Outgoing,
        window: Option<Duration>,
        calls: &mut Calls,
    ) -> Write {
        let envelope = &message.envelope;
        let ids = &self.site.options.ids;
        let wait = whole_ms(message.delay);
        let packed = |hold: Option<&str>| {
            let name = format!("p{}", ids.text());
            convert::pack(envelope, hold, &name, &keys.part)
        };
        let command = if let Some(window) = window.filter(|_| !envelope.id.is_empty()) {
            let mark = keys.mark(envelope.key.as_deref(), &envelope.id);
            let hold = format!("{:016x}", (ids.next() >> 64) as u64);
            let (delayed, wake) = (keys.delayed(), keys.wake());
            let mut command = calls.call(&PUBLISH, &[&keys.stream, &mark, &delayed, &wake]);
            let held = expiry_ms(window.max(LONGEST_HOLD));
            command.arg(held).arg(&hold).arg(wait);
            if wait == 0 {
                convert::add_fields(&mut command, envelope, Some(&hold));
            } else {
                command.arg(packed(Some(&hold)));
            }
            command
        } else if wait == 0 {
            let mut command = redis::cmd("XADD");
            command.arg(&keys.stream).arg("NOMKSTREAM");
            if Flaw::StreamTrimmed.on() {
                command.arg("MAXLEN").arg(100);
            }
            command.arg("*");
            convert::add_fields(&mut command, envelope, None);
            command
        } else {
            let mut command = calls.call(&DELAY, &[&keys.delayed(), &keys.wake(), &keys.stream]);
            command.arg(wait).arg(packed(None));
            command
        };
        Write {
            slot: keys.slot,
            command,
            bytes: envelope.body.len(),
        }
    }

    /// One answer per command, in order; servers at the same time.
    pub(crate) async fn send_all(&self, writes: Vec<Write>) -> Vec<Result<Value>> {
        let mut answers: Vec<_> = writes.iter().map(|_| Err(unexpected())).collect();
        // Chunks of one server follow each other, which keeps the order of a queue.
        let mut by_server: BTreeMap<u16, Vec<Chunk>> = BTreeMap::new();
        for (index, write) in writes.into_iter().enumerate() {
            let chunks = by_server.entry(self.server(write.slot)).or_default();
            let full = |chunk: &Chunk| chunk.indexes.len() >= CHUNK || chunk.bytes >= CHUNK_BYTES;
            if chunks.last().is_none_or(full) {
                chunks.push(Chunk::default());
            }
            if let Some(chunk) = chunks.last_mut() {
                chunk.indexes.push(index);
                chunk.bytes += write.bytes;
                chunk.pipeline.add_command(write.command);
            }
        }
        let servers = by_server.into_iter().map(|(slot, chunks)| async move {
            let mut answers = Vec::new();
            for chunk in chunks {
                let replies = self.send(slot, &chunk.pipeline).await;
                answers.extend(chunk.indexes.into_iter().zip(replies));
            }
            answers
        });
        for (index, answer) in join_all(servers).await.into_iter().flatten() {
            answers[index] = answer;
        }
        answers
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

    pub(crate) async fn send_once(&self, slot: u16, pipeline: &Pipeline) -> Vec<Result<Value>> {
        match self
            .links
            .exchange(slot, pipeline, self.site.options.confirm_timeout)
            .await
        {
            Ok(mut replies) => {
                CrashPoint::PublishSent.reached();
                replies.resize(pipeline.len(), Value::Nil);
                replies.into_iter().map(Ok).collect()
            }
            Err(broken) => {
                let error = match Flaw::UnknownIsRefused.on() {
                    true => unread(broken),
                    false => broken.into_error(),
                };
                let again = || error.again();
                (0..pipeline.len()).map(|_| Err(again())).collect()
            }
        }
    }

    /// What tells servers apart before it is known which holds a slot.
    pub(crate) fn server(&self, slot: u16) -> u16 {
        if self.is_cluster() { slot } else { 0 }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.site.address.kind == Kind::Cluster
    }
}

/// What the answer to a [`Write`] to a queue means.
pub(crate) fn stored(reply: &Value) -> Answer {
    match reply {
        Value::ServerError(_) if Flaw::RefusalIgnored.on() => Ok(Published::Accepted),
        Value::ServerError(error) => Err(refused(error)),
        Value::Nil => Err(no_such_queue()),
        reply => match int(reply) {
            Some(0) => Err(no_such_queue()),
            Some(2) => Ok(Published::Duplicate),
            _ => Ok(Published::Accepted),
        },
    }
}

/// What the answer to a reply means. Whoever is gone takes nothing, nor does what is no address at
/// all.
fn answered(reply: &Value) -> Answer {
    match reply {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Published::Accepted),
        Value::ServerError(error) => Err(refused(error)),
        _ => Ok(Published::Accepted),
    }
}

fn no_such_queue() -> Error {
    Error::new(
        ErrorKind::NoSuchQueue,
        "the queue does not exist; declare it first",
    )
}
