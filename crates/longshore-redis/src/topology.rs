//! Creating and verifying queues.

use longshore_core::{ConnectOptions, Declare, Error, ErrorKind, Result, Topology, chaos::Flaw};
use redis::Value;

use crate::{
    entry::{array, int, lookup, text},
    failure::{checked, refused, unread},
    link::Links,
    meta::Meta,
    names::{GROUP, Keys, topic_key},
};

pub(crate) mod partitions;

/// Creates what is missing, or only looks; refuses what is there and different.
pub(crate) async fn declare(
    links: &Links,
    options: &ConnectOptions,
    topology: &Topology,
    declare: Declare,
) -> Result<()> {
    let keys = Keys::new(&options.key_prefix, &topology.queue);
    let lanes = topology.lanes.iter();
    let lanes = lanes.map(|lane| Keys::lane(&options.key_prefix, &topology.queue, lane));
    let streams: Vec<String> = std::iter::once(keys.stream.clone())
        .chain(lanes.map(|keys| keys.stream))
        .collect();
    check_kinds(links, options, &keys, &streams, declare).await?;
    for stream in &streams {
        group(links, options, &keys, stream, declare).await?;
    }
    partitions::declare(links, options, topology, declare).await?;
    if declare == Declare::Create {
        let meta = Meta::of(topology);
        meta.write(links, &keys, options.confirm_timeout).await?;
    }
    for topic in &topology.topics {
        bind(links, options, topology, topic, declare).await?;
    }
    Ok(())
}

/// The stream of one lane and its only group.
async fn group(
    links: &Links,
    options: &ConnectOptions,
    keys: &Keys,
    stream: &str,
    declare: Declare,
) -> Result<()> {
    let mut pipeline = redis::pipe();
    if declare == Declare::Create {
        pipeline
            .cmd("XGROUP")
            .arg("CREATE")
            .arg(stream)
            .arg(GROUP)
            .arg(if Flaw::GroupAtEnd.on() { "$" } else { "0" })
            .arg("MKSTREAM");
    }
    pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
    let limit = options.confirm_timeout;
    let replies = links.exchange(keys.slot, &pipeline, limit).await;
    let mut replies = replies.map_err(unread)?;
    let names = checked(replies.pop().unwrap_or(Value::Nil)).map(group_names);
    let refusal = match replies.pop() {
        Some(Value::ServerError(error)) => Some(refused(&error)),
        _ => None,
    };
    let ours = |names: &[String]| names.iter().any(|name| name == GROUP);
    let names = match (names, refusal) {
        // A full server refuses to create even what is there.
        (Ok(names), _) if ours(&names) => names,
        (_, Some(refusal)) => return Err(refusal),
        (Err(error), None) => return Err(error),
        (Ok(_), None) => {
            return Err(no_group(stream));
        }
    };
    if names.len() > 1 {
        return Err(too_many_groups(stream, names.len()));
    }
    Ok(())
}

fn group_names(groups: Value) -> Vec<String> {
    let name = |group| text(lookup(group, "name")?.clone());
    array(groups).iter().filter_map(name).collect()
}

/// What is under our keys must be of the kind that we put there.
async fn check_kinds(
    links: &Links,
    options: &ConnectOptions,
    keys: &Keys,
    streams: &[String],
    declare: Declare,
) -> Result<()> {
    let others = [
        (keys.delayed(), "zset"),
        (keys.dead(), "stream"),
        (keys.wake(), "list"),
        (keys.meta(), "hash"),
    ];
    let expected: Vec<(&String, &str)> = streams
        .iter()
        .map(|stream| (stream, "stream"))
        .chain(others.iter().map(|(key, kind)| (key, *kind)))
        .collect();
    let mut pipeline = redis::pipe();
    for (key, _) in &expected {
        pipeline.cmd("TYPE").arg(key);
    }
    let replies = links
        .exchange(keys.slot, &pipeline, options.confirm_timeout)
        .await;
    for ((key, kind), reply) in expected.into_iter().zip(replies.map_err(unread)?) {
        let found = text(checked(reply)?).unwrap_or_default();
        if found == "none" {
            if declare == Declare::Verify && streams.contains(key) {
                return Err(no_such_stream(key));
            }
        } else if found != kind {
            return Err(wrong_kind(key, &found, kind));
        }
    }
    Ok(())
}

async fn bind(
    links: &Links,
    options: &ConnectOptions,
    topology: &Topology,
    topic: &longshore_core::Name,
    declare: Declare,
) -> Result<()> {
    let (key, slot) = topic_key(&options.key_prefix, topic);
    let mut pipeline = redis::pipe();
    let queue = topology.queue.as_str();
    pipeline.cmd("SISMEMBER").arg(&key).arg(queue);
    let create = declare == Declare::Create;
    if create {
        pipeline.cmd("SADD").arg(&key).arg(queue);
    }
    let replies = links
        .exchange(slot, &pipeline, options.confirm_timeout)
        .await;
    let mut replies = replies.map_err(unread)?.into_iter();
    let mut next = || replies.next().map(checked);
    let (there, added) = (next().unwrap_or(Ok(Value::Nil)), next());
    let bound = match there.map(|reply| int(&reply) == Some(1)) {
        // Asked for first, because a full server refuses to add even what is there.
        Ok(true) => true,
        Ok(false) => added.transpose()?.is_some(),
        Err(error) if error.kind() == ErrorKind::TopologyDiffers => {
            return Err(Error::new(
                ErrorKind::TopologyDiffers,
                format!(
                    "the key {key} holds something else where the set of a topic belongs; delete it or use another topic name"
                ),
            ));
        }
        Err(error) => return Err(error),
    };
    if !bound {
        return Err(Error::new(
            ErrorKind::NoSuchQueue,
            format!(
                "the queue {} is not bound to the topic {topic}",
                topology.queue
            ),
        ));
    }
    Ok(())
}

fn no_group(stream: &str) -> Error {
    Error::new(
        ErrorKind::NoSuchQueue,
        format!("the stream {stream} has no consumer group \"{GROUP}\"; create the queue first"),
    )
}

fn too_many_groups(stream: &str, count: usize) -> Error {
    Error::new(
        ErrorKind::TopologyDiffers,
        format!(
            "the stream {stream} has {count} consumer groups; \"{GROUP}\" must be the only group, because what it has done is \
             deleted: use a topic to give others a copy"
        ),
    )
}

fn no_such_stream(stream: &str) -> Error {
    Error::new(
        ErrorKind::NoSuchQueue,
        format!("there is no stream {stream}, and nothing may be created here"),
    )
}

fn wrong_kind(key: &str, found: &str, kind: &str) -> Error {
    Error::new(
        ErrorKind::TopologyDiffers,
        format!(
            "the key {key} holds a {found} where a {kind} belongs; delete it or use another queue name"
        ),
    )
}
