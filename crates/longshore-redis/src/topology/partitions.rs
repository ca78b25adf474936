//! Creating and verifying the partitions of a queue with sessions, all of them at once.

use longshore_core::{ConnectOptions, Declare, Error, ErrorKind, Name, Part, Result, Topology};
use redis::{Cmd, Value};

use super::{group_names, no_group, no_such_stream, too_many_groups, wrong_kind};
use crate::{
    entry::{int, text},
    failure::{checked, unread},
    link::Links,
    meta::Meta,
    names::{GROUP, Keys},
    scripts::{self, BEAT, RETIRE},
    spread::spread,
};

/// The keys of every partition of a queue that has `of`.
pub(crate) fn keys_of(options: &ConnectOptions, queue: &Name, of: u16) -> Vec<Keys> {
    let topology = Topology::new(queue.clone());
    let scope = |index| topology.scope(Part::Partition { index, of });
    let keys = |index| Keys::new(&options.key_prefix, &scope(index));
    (0..of).map(keys).collect()
}

/// Creates or verifies the partitions, once those of another count are known to be gone or empty.
pub(crate) async fn declare(
    links: &Links,
    options: &ConnectOptions,
    topology: &Topology,
    declare: Declare,
) -> Result<()> {
    let (queue, of) = (&topology.queue, topology.partitions);
    if of > 256 || (of > 0 && !of.is_power_of_two()) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{of} partitions are none of 1, 2, 4, … 256"),
        ));
    }
    let plain = Keys::new(&options.key_prefix, queue);
    let there = Meta::read(links, &plain, options.confirm_timeout).await?;
    if there.partitions > 0 && there.partitions != of {
        if declare == Declare::Verify {
            return Err(differs(queue, there.partitions, of));
        }
        let workers = live(links, options, queue, there.partitions).await?;
        if workers > 0 {
            return Err(in_use(queue, (there.partitions, of), workers));
        }
        retire(links, options, queue, (there.partitions, of)).await?;
    }
    if of == 0 {
        return Ok(());
    }
    let partitions = keys_of(options, queue, of);
    check_kinds(links, options, &partitions).await?;
    groups(links, options, &partitions, declare).await
}

/// Deletes the partitions of an earlier count, so that whoever still publishes to them is told.
async fn retire(
    links: &Links,
    options: &ConnectOptions,
    queue: &Name,
    (before, now): (u16, u16),
) -> Result<()> {
    let partitions = keys_of(options, queue, before);
    for only_look in ["1", "0"] {
        let command = |keys: &Keys| {
            let names =
                [&keys.stream, &keys.delayed(), &keys.dead(), &keys.wake()].map(|n| n.clone());
            let mut command = RETIRE.call(&names.each_ref().map(|name| &name[..]));
            command.arg(only_look);
            (keys.slot, command)
        };
        let commands: Vec<_> = partitions.iter().map(command).collect();
        for reply in spread(links, &commands, options.confirm_timeout).await {
            if int(&checked(reply.map_err(unread)?)?) != Some(1) {
                return Err(differs(queue, before, now));
            }
        }
    }
    Ok(())
}

/// How many workers there are of so many partitions.
async fn live(links: &Links, options: &ConnectOptions, queue: &Name, of: u16) -> Result<i64> {
    let keys = Keys::workers(&options.key_prefix, queue, of);
    let mut command = BEAT.call(&[&keys.members()]);
    // Nobody leaves; it only counts.
    command.arg("").arg(0);
    let reply = scripts::run(links, keys.slot, command, options.confirm_timeout).await;
    Ok(int(&checked(reply.map_err(unread)?)?).unwrap_or(0))
}

fn in_use(queue: &Name, (before, now): (u16, u16), workers: i64) -> Error {
    Error::new(
        ErrorKind::TopologyDiffers,
        format!(
            "the queue {queue} has {before} partitions and {workers} workers, here it is to have {now}; declare \
             {before}, or stop these workers and change the number everywhere"
        ),
    )
}

fn differs(queue: &Name, before: u16, now: u16) -> Error {
    Error::new(
        ErrorKind::TopologyDiffers,
        format!(
            "the queue {queue} has {before} partitions, here it is to have {now}; empty them and their dead letters \
             first, or declare {before}"
        ),
    )
}

/// What is under our keys must be of the kind that we put there.
async fn check_kinds(links: &Links, options: &ConnectOptions, partitions: &[Keys]) -> Result<()> {
    let expected: Vec<(u16, String, &str)> = partitions
        .iter()
        .flat_map(|keys| {
            [
                (keys.slot, keys.stream.clone(), "stream"),
                (keys.slot, keys.delayed(), "zset"),
                (keys.slot, keys.dead(), "stream"),
                (keys.slot, keys.lease(), "string"),
                (keys.slot, keys.token(), "string"),
            ]
        })
        .collect();
    let kind = |slot: &u16, key: &String| {
        let mut command = redis::cmd("TYPE");
        command.arg(key);
        (*slot, command)
    };
    let commands: Vec<_> = expected
        .iter()
        .map(|(slot, key, _)| kind(slot, key))
        .collect();
    let replies = spread(links, &commands, options.confirm_timeout).await;
    for ((_, key, kind), reply) in expected.iter().zip(replies) {
        let found = text(checked(reply.map_err(unread)?)?).unwrap_or_default();
        if found != "none" && found != *kind {
            return Err(wrong_kind(key, &found, kind));
        }
    }
    Ok(())
}

/// Each stream and its only group.
async fn groups(
    links: &Links,
    options: &ConnectOptions,
    partitions: &[Keys],
    declare: Declare,
) -> Result<()> {
    let limit = options.confirm_timeout;
    let mut refusals = Vec::new();
    if declare == Declare::Create {
        let create = |keys: &Keys| {
            let mut command = redis::cmd("XGROUP");
            command.arg("CREATE").arg(&keys.stream).arg(GROUP);
            command.arg("0").arg("MKSTREAM");
            (keys.slot, command)
        };
        let commands: Vec<(u16, Cmd)> = partitions.iter().map(create).collect();
        refusals = spread(links, &commands, limit).await;
    }
    let look = |keys: &Keys| {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg(&keys.stream);
        (keys.slot, command)
    };
    let commands: Vec<_> = partitions.iter().map(look).collect();
    let found = spread(links, &commands, limit).await;
    let mut refusals = refusals.into_iter();
    for (keys, groups) in partitions.iter().zip(found) {
        let refusal = refusals.next();
        let groups = groups.map_err(unread)?;
        let missing = matches!(groups, Value::ServerError(_));
        let names = if missing {
            Vec::new()
        } else {
            group_names(groups)
        };
        // A full server refuses to create even what is there.
        if !names.iter().any(|name| name == GROUP) {
            if let Some(refusal) = refusal {
                checked(refusal.map_err(unread)?)?;
            }
            return Err(if missing {
                no_such_stream(&keys.stream)
            } else {
                no_group(&keys.stream)
            });
        }
        if names.len() > 1 {
            return Err(too_many_groups(&keys.stream, names.len()));
        }
    }
    Ok(())
}
