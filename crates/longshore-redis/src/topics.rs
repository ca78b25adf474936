//! Publishing to topics: a copy for every bound queue, in the part of it where the message belongs.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use longshore_core::{
    Destination, Envelope, Error, ErrorKind, Name, Outgoing, Part, Published, Result, Topology,
    partition_of,
};
use redis::Value;

use crate::{
    entry::{array, text},
    failure::{checked, refused, unread},
    meta::Meta,
    names::{Keys, topic_key},
    publisher::{Answer, CHUNK, CHUNK_BYTES, Publisher, Write, stored},
    scripts::{self, Calls},
};

/// The copies of one message.
type Copies = Vec<Write>;

impl Publisher {
    /// One answer per message, in order. All go to topics.
    pub(crate) async fn publish_to_topics(&self, messages: &[&Outgoing]) -> Vec<Answer> {
        let topics: BTreeSet<&Name> = messages.iter().filter_map(|m| topic_of(m)).collect();
        let asked = topics.iter().map(|topic| self.bound_to(topic));
        let found = join_all(asked).await;
        let bound: BTreeMap<&Name, Result<Vec<Name>>> = topics.into_iter().zip(found).collect();
        let queues: BTreeSet<&Name> = bound.values().flatten().flatten().collect();
        let asked = queues.iter().map(|queue| self.meta_of(queue));
        let found = join_all(asked).await;
        let metas: BTreeMap<&Name, Result<Meta>> = queues.into_iter().zip(found).collect();
        let mut calls = BTreeMap::new();
        let copies = messages
            .iter()
            .map(|message| {
                let queues = topic_of(message).and_then(|topic| bound.get(topic));
                let queues =
                    queues.map_or(Ok(&[][..]), |queues| again(queues).map(Vec::as_slice))?;
                let copy = |queue| self.copy_for(queue, again(&metas[queue])?, message, &mut calls);
                queues.iter().map(copy).collect()
            })
            .collect();
        let answers = if self.is_cluster() {
            self.one_by_one(copies).await
        } else {
            self.at_once(copies).await
        };
        let named = messages.iter().zip(answers).map(|(message, answer)| {
            answer.unwrap_or_else(|| Err(nobody(topic_of(message).map_or("", Name::as_str))))
        });
        named.collect()
    }

    /// The queues bound to a topic.
    async fn bound_to(&self, topic: &Name) -> Result<Vec<Name>> {
        let (key, slot) = topic_key(&self.site.options.key_prefix, topic);
        let mut members = redis::pipe();
        members.cmd("SMEMBERS").arg(&key);
        let limit = self.site.options.confirm_timeout;
        let replies = self.links.exchange(slot, &members, limit).await;
        let reply = replies.map_err(unread)?.pop().unwrap_or(Value::Nil);
        let mut queues: Vec<Name> = array(checked(reply)?)
            .into_iter()
            .filter_map(text)
            .filter_map(|name| Name::new(name).ok())
            .collect();
        queues.sort();
        Ok(queues)
    }

    async fn meta_of(&self, queue: &Name) -> Result<Meta> {
        let keys = Keys::new(&self.site.options.key_prefix, queue);
        Meta::read(&self.links, &keys, self.site.options.confirm_timeout).await
    }

    fn copy_for(
        &self,
        queue: &Name,
        meta: &Meta,
        message: &Outgoing,
        calls: &mut BTreeMap<u16, Calls>,
    ) -> Result<Write> {
        let keys = part_for(
            &self.site.options.key_prefix,
            queue,
            meta,
            &message.envelope,
        );
        let calls = calls.entry(self.server(keys.slot)).or_default();
        Ok(self.write_to(&keys, message, meta.dedup, calls))
    }

    /// The copies of each message in one transaction. `None`: there is no queue for it.
    async fn at_once(&self, messages: Vec<Result<Copies>>) -> Vec<Option<Answer>> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let mut batch = redis::pipe();
            let mut bytes = 0;
            let mut counts = Vec::new();
            while batch.len() < CHUNK && bytes < CHUNK_BYTES {
                let Some(copies) = messages.next() else { break };
                counts.push(copies.map(|copies| {
                    let count = copies.len();
                    if count > 0 {
                        batch.cmd("MULTI");
                        for copy in copies {
                            bytes += copy.bytes;
                            batch.add_command(copy.command);
                        }
                        batch.cmd("EXEC");
                    }
                    count
                }));
            }
            let mut replies = self.send_once(0, &batch).await.into_iter();
            answers.extend(counts.into_iter().map(|count| match count {
                Ok(0) => None,
                // With what opens and closes the transaction.
                Ok(count) => transaction(replies.by_ref().take(count + 2).collect()),
                Err(error) => Some(Err(error)),
            }));
        }
        answers
    }

    /// One copy by itself; publishing again with the same id completes what a failure left.
    async fn one_by_one(&self, messages: Vec<Result<Copies>>) -> Vec<Option<Answer>> {
        let mut writes = Vec::new();
        let counts: Vec<Result<usize>> = messages
            .into_iter()
            .map(|copies| {
                let before = writes.len();
                writes.extend(copies?);
                Ok(writes.len() - before)
            })
            .collect();
        let mut replies = self.send_all(writes).await.into_iter();
        let answers = counts.into_iter().map(|count| match count {
            Ok(count) => {
                let replies = replies.by_ref().take(count);
                any_stored(replies.map(|reply| reply.and_then(|reply| stored(&reply))))
            }
            Err(error) => Some(Err(error)),
        });
        answers.collect()
    }
}

/// Where in a bound queue a message belongs: by its key, else by its priority where the queue has
/// such a lane.
fn part_for(prefix: &str, queue: &Name, meta: &Meta, envelope: &Envelope) -> Keys {
    if let (1.., Some(key)) = (meta.partitions, &envelope.key) {
        let part = Part::Partition {
            index: partition_of(key, meta.partitions),
            of: meta.partitions,
        };
        return Keys::new(prefix, &Topology::new(queue.clone()).scope(part));
    }
    match &envelope.priority {
        Some(lane) if meta.lanes.contains(&**lane) => Keys::lane(prefix, queue, lane),
        _ => Keys::new(prefix, queue),
    }
}

fn topic_of(message: &Outgoing) -> Option<&Name> {
    match &message.to {
        Destination::Topic(topic) => Some(topic),
        _ => None,
    }
}

/// What became of one transaction.
fn transaction(replies: Vec<Result<Value>>) -> Option<Answer> {
    let replies: Result<Vec<Value>> = replies.into_iter().collect();
    let mut replies = match replies {
        Ok(replies) => replies,
        Err(error) => return Some(Err(error)),
    };
    let outcome = replies.pop().unwrap_or(Value::Nil);
    if let Value::ServerError(error) = &outcome {
        // It was not carried out; why, was said when a command was queued.
        let why = replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(refused(error)),
            _ => None,
        });
        return Some(Err(why.unwrap_or_else(|| refused(error))));
    }
    let outcomes = array(outcome);
    any_stored(outcomes.iter().map(|outcome| {
        // Its text came with it or before it, so it was removed in between; the others are stored.
        if scripts::is_unknown(outcome) {
            let text = "redis has lost a script just now; publish again with the same id";
            return Err(Error::new(ErrorKind::Unknown, text));
        }
        stored(outcome)
    }))
}

/// A queue that is bound but deleted is no queue; any other failure is the answer. Known to every
/// queue is a duplicate; where it was missing in one, it is there now.
fn any_stored(answers: impl Iterator<Item = Answer>) -> Option<Answer> {
    let mut best = None;
    for answer in answers {
        match answer {
            Ok(Published::Accepted) => best = Some(Published::Accepted),
            Ok(Published::Duplicate) => best = best.or(Some(Published::Duplicate)),
            Err(error) if error.kind() == ErrorKind::NoSuchQueue => {}
            // Some queues may have their copy.
            Err(error) if best.is_some() => {
                return Some(Err(Error::new(ErrorKind::Unknown, error.to_string())));
            }
            Err(error) => return Some(Err(error)),
        }
    }
    best.map(Ok)
}

fn nobody(topic: &str) -> Error {
    let text = format!("no queue is bound to the topic {topic}; declare a queue with it first");
    Error::new(ErrorKind::NoSuchQueue, text)
}

/// The same error for everybody it concerns.
fn again<T>(result: &Result<T>) -> Result<&T> {
    result.as_ref().map_err(|error| error.again())
}
