//! The task that reads a partition, always in the order of ids.
//!
//! What is pending comes before what is new, whoever read it first, and nothing new is read while
//! something pending is unknown here. The server is asked for new entries by a script that sees the
//! lease; only the wait for them blocks, and takes nothing.

use std::{sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use longshore_core::{
    Declare, ErrorKind,
    chaos::{CrashPoint, Flaw},
};
use redis::{Cmd, Pipeline, Value};

use super::{Partition, Past};
use crate::{
    entry::{EntryId, Pending, array, entries, int, lookup, pending, read_reply, text},
    failure::{Broken, is_missing, refused},
    link::{Link, pauses},
    meta::Meta,
    names::{GROUP, Keys},
    reader::{COUNT_FIRST, next_count},
    scripts::{self, INHERIT, READ_PARTITION},
    topology,
};

/// How long one wait may last on the server.
const BLOCK: Duration = Duration::from_millis(500);
/// Rows of the pending list looked at in one go.
const PAGE: usize = 100;

/// What one step found.
enum Step {
    /// Everything up to this id is known here; there may be more.
    UpTo(String),
    /// Everything up to this id is known here, and there was no more.
    AllUpTo(String),
    /// More was delivered than is known here.
    Behind,
    /// There is no room for what is pending.
    Full,
    /// The partition is somebody else's.
    Lost,
    /// Something is wrong, said in `trouble`.
    Trouble(String),
}

/// Reads until the source stops or the partition is lost.
pub(crate) async fn run(partition: Arc<Partition>, link: Link) {
    let killed = partition.killed.clone();
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = read(&partition, &link) => {}
    }
    link.close();
}

async fn read(partition: &Partition, link: &Link) {
    let mut delays = pauses();
    let mut most = COUNT_FIRST;
    let mut known: Option<String> = None;
    while !partition.table.lock().stopped {
        let step = match known.take() {
            None => inherit(partition, link).await,
            Some(last) => match partition.table.reserve_for_read() {
                0 => {
                    freed(partition).await;
                    Step::UpTo(last)
                }
                places => read_once(partition, link, places, last, &mut most).await,
            },
        };
        match step {
            Step::UpTo(last) => {
                delays = pauses();
                known = Some(last);
            }
            Step::AllUpTo(last) => {
                delays = pauses();
                match wait(partition, link, &last).await {
                    Ok(()) => known = Some(last),
                    Err(why) => trouble(partition, link, &mut delays, why).await,
                }
            }
            Step::Behind => {}
            Step::Full => freed(partition).await,
            Step::Lost => partition.lease.lose(),
            Step::Trouble(_) if Flaw::NoReconnect.on() => return,
            Step::Trouble(why) => trouble(partition, link, &mut delays, why).await,
        }
    }
}

/// Takes what is pending and unknown here: left by an earlier owner, or by an answer that was lost.
async fn inherit(partition: &Partition, link: &Link) -> Step {
    let mut after = None;
    let mut last = None;
    loop {
        let (delivered, rows) = match rows(partition, link, after).await {
            Ok(page) => page,
            Err(step) => return step,
        };
        // Asked before the rows: what came in between is seen by the next read.
        let last = last.get_or_insert(delivered);
        let full = rows.len() == PAGE;
        after = rows.last().map(|row| row.id);
        let unknown: Vec<_> = {
            let inner = partition.table.lock();
            let released = partition.released();
            let unknown = |row: &Pending| !inner.knows(row.id) && !released.contains(&row.id);
            rows.into_iter().filter(unknown).collect()
        };
        for chunk in unknown.chunks(COUNT_FIRST) {
            let places = partition.table.reserve(chunk.len());
            if let Some(step) = take(partition, link, places, &chunk[..places]).await {
                return step;
            }
            if places < chunk.len() {
                return Step::Full;
            }
        }
        if !full {
            partition.table.set_trouble(None);
            return Step::UpTo(last.clone());
        }
    }
}

/// The id delivered last, and one page of the pending list.
async fn rows(
    partition: &Partition,
    link: &Link,
    after: Option<EntryId>,
) -> Result<(String, Vec<Pending>), Step> {
    let stream = &partition.keys.stream;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
    pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
    pipeline.arg(after.map_or("-".to_owned(), |id| format!("({id}")));
    pipeline.arg("+").arg(PAGE);
    let replies = link.exchange(&pipeline, partition.patience()).await;
    let mut replies = replies
        .map_err(|broken| Step::Trouble(broken.into_error().to_string()))?
        .into_iter();
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let (groups, rows) = (next(), next());
    for reply in [&groups, &rows] {
        if let Value::ServerError(error) = reply {
            return Err(missing_or_trouble(partition, error).await);
        }
    }
    let is_ours =
        |group: &&Value| lookup(group, "name").cloned().and_then(text).as_deref() == Some(GROUP);
    let groups = array(groups);
    let delivered = groups
        .iter()
        .find(is_ours)
        .and_then(|group| text(lookup(group, "last-delivered-id")?.clone()));
    let Some(delivered) = delivered else {
        return Err(declare_again(partition).await);
    };
    Ok((delivered, pending(rows)))
}

/// Takes these rows in, in their order.
async fn take(partition: &Partition, link: &Link, places: usize, rows: &[Pending]) -> Option<Step> {
    if rows.is_empty() {
        partition.table.unreserve(places);
        return None;
    }
    let past = |row: &Pending| Past::of(row, &partition.consumer);
    let mut command = INHERIT.call(&[&partition.keys.stream, &partition.lease.key.name]);
    command.arg(GROUP).arg(&partition.lease.owner);
    for row in rows {
        let past = past(row);
        command
            .arg(row.id.to_string())
            .arg(past.consumer(&partition.consumer))
            .arg(past.count());
    }
    let reply = match run_on(partition, link, command).await {
        Ok(Value::Array(taken)) => Value::Array(taken),
        other => {
            partition.table.unreserve(places);
            return Some(step_of(partition, other).await);
        }
    };
    CrashPoint::TakenOver.reached();
    let taken = entries(reply).into_iter().filter_map(|entry| {
        let row = rows.iter().find(|row| row.id == entry.id)?;
        Some((entry, past(row)))
    });
    partition.arrive(places, taken.collect()).await;
    None
}

async fn read_once(
    partition: &Partition,
    link: &Link,
    places: usize,
    last: String,
    most: &mut usize,
) -> Step {
    let lease = &partition.lease;
    let asked = places.min(*most);
    let mut command = READ_PARTITION.call(&[&partition.keys.stream, &lease.key.name]);
    command
        .arg(GROUP)
        .arg(&lease.owner)
        .arg(&partition.consumer)
        .arg(asked)
        .arg(&last);
    let reply = match run_on(partition, link, command).await {
        Ok(Value::Nil) => {
            partition.table.unreserve(places);
            partition.table.set_trouble(None);
            return Step::AllUpTo(last);
        }
        Ok(reply @ (Value::Array(_) | Value::Map(_))) => reply,
        other => {
            partition.table.unreserve(places);
            return step_of(partition, other).await;
        }
    };
    partition.table.set_trouble(None);
    let entries = read_reply(reply);
    if let Some(count) = next_count(&entries, *most) {
        *most = count;
    }
    let more = entries.len() == asked;
    let last = entries.last().map_or(last, |entry| entry.id.to_string());
    let entries = entries.into_iter().map(|entry| (entry, Past::NONE));
    partition.arrive(places, entries.collect()).await;
    if more {
        Step::UpTo(last)
    } else {
        Step::AllUpTo(last)
    }
}

/// What an answer without entries means.
async fn step_of(partition: &Partition, reply: Result<Value, Broken>) -> Step {
    match reply {
        Err(broken) => Step::Trouble(broken.into_error().to_string()),
        Ok(Value::ServerError(error)) => missing_or_trouble(partition, &error).await,
        Ok(reply) => match int(&reply) {
            Some(0) => Step::Lost,
            Some(1) => Step::Behind,
            _ => Step::Trouble("redis gave an answer this client does not understand".to_owned()),
        },
    }
}

async fn missing_or_trouble(partition: &Partition, error: &redis::ServerError) -> Step {
    if is_missing(error) {
        return declare_again(partition).await;
    }
    Step::Trouble(refused(error).to_string())
}

/// The partition was deleted, or the server has come back without it.
async fn declare_again(partition: &Partition) -> Step {
    let subscription = &partition.subscription;
    if subscription.declare == Declare::Verify {
        let text = "the partition does not exist, and nothing may be created here";
        return Step::Trouble(text.to_owned());
    }
    let (links, topology) = (&partition.links, &subscription.topology);
    let options = &partition.site.options;
    let plain = Keys::new(&options.key_prefix, &topology.queue);
    // A worker that was left behind must not turn back what others have changed.
    let declared = match Meta::read(links, &plain, options.confirm_timeout).await {
        Ok(meta) if meta.partitions != 0 && meta.partitions != topology.partitions => {
            let (has, of) = (meta.partitions, topology.partitions);
            return Step::Trouble(format!("the queue has {has} partitions now, not {of}"));
        }
        Ok(_) => topology::declare(links, options, topology, subscription.declare).await,
        Err(error) => Err(error),
    };
    match declared {
        Ok(()) => {
            tracing::warn!(queue = %partition.keys.scope, "the partition was missing and has been created again");
            Step::Behind
        }
        Err(error) if error.kind() == ErrorKind::Closed => Step::Behind,
        Err(error) => Step::Trouble(error.to_string()),
    }
}

/// Waits until there is an entry after this one, not for ever.
async fn wait(partition: &Partition, link: &Link, last: &str) -> Result<(), String> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("XREAD").arg("COUNT").arg(1);
    pipeline.arg("BLOCK").arg(BLOCK.as_millis() as u64);
    let stream = &partition.keys.stream;
    pipeline.arg("STREAMS").arg(stream).arg(last);
    tokio::select! {
        biased;
        () = stopped(partition) => Ok(()),
        replies = link.exchange(&pipeline, BLOCK + partition.patience()) => {
            match replies.map_err(|broken| broken.into_error().to_string())?.first() {
                Some(Value::ServerError(error)) if !is_missing(error) => Err(refused(error).to_string()),
                _ => Ok(()),
            }
        }
    }
}

/// Runs a script over the connection of this reader.
async fn run_on(partition: &Partition, link: &Link, command: Cmd) -> Result<Value, Broken> {
    let mut pipeline = Pipeline::new();
    pipeline.add_command(command);
    let limit = partition.patience();
    let mut replies = link.exchange(&pipeline, limit).await?;
    if replies.first().is_some_and(scripts::is_unknown) {
        scripts::load(&partition.links, partition.keys.slot, limit).await?;
        replies = link.exchange(&pipeline, limit).await?;
    }
    Ok(replies.into_iter().next().unwrap_or(Value::Nil))
}

async fn trouble(partition: &Partition, link: &Link, delays: &mut ExponentialBackoff, why: String) {
    if partition.table.trouble().is_none() {
        tracing::warn!(queue = %partition.keys.scope, %why, "nothing can be received just now");
    }
    partition.table.set_trouble(Some(why));
    let delay = delays.next().unwrap_or(BLOCK);
    let delay = delay.min(link.pause().await.max(Duration::from_millis(50)));
    let _ = tokio::time::timeout(delay, stopped(partition)).await;
}

async fn freed(partition: &Partition) {
    // The time-out is for a notice that somebody else has used up.
    let _ = tokio::time::timeout(BLOCK, partition.table.freed.notified()).await;
}

async fn stopped(partition: &Partition) {
    while !partition.table.lock().stopped {
        partition.table.freed.notified().await;
    }
}
