//! The task that reads ahead.
//!
//! A read in flight is never dropped: the server would go on and lock entries for nobody. After
//! any failed read the pending list is searched for what such a read may have left there.

use std::{sync::Arc, time::Duration};

use longshore_core::{Declare, ErrorKind, chaos::Flaw};
use redis::Value;

use crate::{
    entry::{Entry, read_reply},
    failure::{is_missing, refused},
    held::Claim,
    lane::Lane,
    link::{Link, pauses},
    names::GROUP,
    scripts::{self, LEAVE},
    takeover, topology,
};

/// How long one read may wait on the server. Also how late the task sees that it must stop, and
/// how often it looks for what others gave back.
const BLOCK: Duration = Duration::from_millis(500);
/// How often the pending list is compared with what is held, in parts of the lock.
const COMPARISONS_PER_LOCK: u32 = 3;

/// Entries asked for in one read while nothing is known of their size, and at most.
pub(crate) const COUNT_FIRST: usize = 16;
const COUNT_MOST: usize = 512;
/// What one read may bring into memory, going by the entries of the one before. Redis lets a publisher
/// store 512 MiB in one field.
const READ_BYTES: usize = 64 * 1024 * 1024;

/// How the read went.
enum Pause {
    /// Go on at once.
    No,
    /// Something is wrong, said in `trouble`.
    Yes(String),
}

/// Reads until the source stops.
pub(crate) async fn run(lane: Arc<Lane>, link: Link) {
    let killed = lane.killed.clone();
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = read(&lane, &link) => {}
    }
    link.close();
}

async fn read(lane: &Lane, link: &Link) {
    let mut delays = pauses();
    let mut returned_at = Duration::ZERO;
    let mut compared_at = lane.now();
    let mut most = COUNT_FIRST;
    while !lane.table.lock().stopped {
        let now = lane.now();
        let unseen = lane.table.lock().unseen;
        if unseen || now.saturating_sub(compared_at) * COMPARISONS_PER_LOCK > lane.subscription.lock
        {
            if let Err(broken) = takeover::recover(lane).await {
                trouble(lane, link, &mut delays, broken.into_error().to_string()).await;
                continue;
            }
            compared_at = now;
        }
        if now.saturating_sub(returned_at) >= BLOCK {
            returned_at = now;
            // A failure shows in the read that follows.
            let _ = takeover::take_returned(lane).await;
        }
        let places = lane.table.reserve_for_read();
        if places == 0 {
            // No read can show that all is well again, but the comparison above has.
            lane.table.set_trouble(None);
            // The time-out is for prefetches and waiting suspects that change without a notice.
            let _ = tokio::time::timeout(BLOCK, lane.table.freed.notified()).await;
            continue;
        }
        match read_once(lane, link, places, &mut most).await {
            Pause::No => delays = pauses(),
            Pause::Yes(_) if Flaw::NoReconnect.on() => return,
            Pause::Yes(why) => trouble(lane, link, &mut delays, why).await,
        }
    }
    leave(lane).await;
}

async fn read_once(lane: &Lane, link: &Link, places: usize, most: &mut usize) -> Pause {
    let mut pipeline = redis::pipe();
    pipeline
        .cmd("XREADGROUP")
        .arg("GROUP")
        .arg(GROUP)
        .arg(&lane.consumer);
    pipeline
        .arg("COUNT")
        .arg(places.min(*most))
        .arg("BLOCK")
        .arg(BLOCK.as_millis() as u64);
    pipeline.arg("STREAMS").arg(&lane.keys.stream).arg(">");
    let sent = lane.now();
    let reply = link.exchange(&pipeline, BLOCK + lane.patience()).await;
    let reply = match reply {
        Ok(replies) => replies.into_iter().next().unwrap_or(Value::Nil),
        Err(broken) => {
            lane.table.unreserve(places);
            return Pause::Yes(broken.into_error().to_string());
        }
    };
    if let Value::ServerError(error) = &reply {
        lane.table.unreserve(places);
        if is_missing(error) {
            return declare_again(lane).await;
        }
        return Pause::Yes(refused(error).to_string());
    }
    lane.table.set_trouble(None);
    let entries = read_reply(reply);
    if let Some(count) = next_count(&entries, *most) {
        *most = count;
    }
    let entries = entries
        .into_iter()
        .map(|entry| (entry, Claim::FRESH))
        .collect();
    lane.arrive(places, sent, entries).await;
    Pause::No
}

/// How many entries the next read may ask for: twice as many, but no more than would fit if all were
/// as large as the largest just seen.
pub(crate) fn next_count(entries: &[Entry], most: usize) -> Option<usize> {
    let size =
        |entry: &Entry| -> usize { entry.fields.iter().map(|(n, v)| n.len() + v.len()).sum() };
    let largest = entries.iter().map(size).max()?;
    let fitting = READ_BYTES / largest.max(1);
    Some(fitting.min(most.saturating_mul(2)).clamp(1, COUNT_MOST))
}

/// The queue was deleted, or the server has come back without it.
async fn declare_again(lane: &Lane) -> Pause {
    let subscription = &lane.subscription;
    if subscription.declare == Declare::Verify {
        return Pause::Yes("the queue does not exist, and nothing may be created here".into());
    }
    match topology::declare(
        &lane.links,
        &lane.site.options,
        &subscription.topology,
        subscription.declare,
    )
    .await
    {
        Ok(()) => {
            tracing::warn!(queue = %subscription.topology.queue, "the queue was missing and has been created again");
            Pause::No
        }
        Err(error) if error.kind() == ErrorKind::Closed => Pause::No,
        Err(error) => Pause::Yes(error.to_string()),
    }
}

async fn trouble(lane: &Lane, link: &Link, delays: &mut backon::ExponentialBackoff, why: String) {
    if lane.table.trouble().is_none() {
        tracing::warn!(queue = %lane.subscription.topology.queue, %why, "nothing can be received just now");
    }
    lane.table.set_trouble(Some(why));
    // Whatever went wrong, the server may know more of what we hold than we do.
    lane.table.lock().unseen = true;
    let delay = delays
        .next()
        .unwrap_or(BLOCK)
        .min(link.pause().await.max(Duration::from_millis(50)));
    let _ = tokio::time::timeout(delay, stopped(lane)).await;
}

async fn stopped(lane: &Lane) {
    while !lane.table.lock().stopped {
        lane.table.freed.notified().await;
    }
}

/// Takes our name off the group once everything held is settled.
async fn leave(lane: &Lane) {
    if lane.table.lock().unseen {
        let _ = takeover::recover(lane).await;
    }
    loop {
        {
            let inner = lane.table.lock();
            if inner.abandoned || inner.held.is_empty() {
                break;
            }
        }
        let _ = tokio::time::timeout(BLOCK, lane.table.freed.notified()).await;
    }
    // A name that stays is deleted by another worker once it is old.
    let mut command = LEAVE.call(&[&lane.keys.stream]);
    command.arg(GROUP).arg(&lane.consumer).arg(0);
    let _ = scripts::run(&lane.links, lane.keys.slot, command, lane.patience()).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::EntryId;

    fn entry(size: usize) -> Entry {
        let id = EntryId { ms: 1, sequence: 0 };
        Entry {
            id,
            fields: vec![(Bytes::new(), vec![0; size].into())],
        }
    }

    #[test]
    fn reads_grow_with_small_entries_and_shrink_at_once_with_large_ones() {
        assert_eq!(next_count(&[], 16), None);
        assert_eq!(next_count(&[entry(100)], 16), Some(32));
        assert_eq!(next_count(&[entry(0)], 512), Some(512));
        assert_eq!(next_count(&[entry(100), entry(1 << 20)], 512), Some(64));
        assert_eq!(next_count(&[entry(READ_BYTES + 1)], 512), Some(1));
        assert_eq!(next_count(&[entry(100)], 1), Some(2));
    }
}
