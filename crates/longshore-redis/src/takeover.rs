//! Taking over what others gave back or died with, and what a lost read left to us.
//!
//! Nothing here counts a start: XCLAIM with JUSTID keeps the count. Every claim is first looked up,
//! then made for exactly what was seen; so even where its answer is lost it is known what a claimed
//! entry was.

use std::{sync::Arc, time::Duration};

use longshore_core::chaos::CrashPoint;
use redis::{Pipeline, Value};

use crate::{
    entry::{EntryId, Pending, entries, pending},
    failure::Broken,
    held::Claim,
    lane::Lane,
    names::{GROUP, RETURNED},
    scripts::{self, CLAIM},
};

/// How often expired locks are looked for.
const SEARCH: Duration = Duration::from_secs(1);
/// Rows of the pending list looked at in one go.
const PAGE: usize = 100;
/// A consumer without a sign of life for this long is dead; its name goes once it holds nothing.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

/// Takes what was given back and has never started, as far as there is room.
pub(crate) async fn take_returned(lane: &Lane) -> Result<(), Broken> {
    let mut after = None;
    loop {
        let rows = rows(lane, None, after, Some(RETURNED)).await?;
        let full = rows.len() == PAGE;
        after = rows.last().map(|row| row.id);
        let mut fresh: Vec<_> = rows.into_iter().filter(|row| row.count == 0).collect();
        let places = lane.table.reserve(fresh.len());
        let enough = places < fresh.len();
        fresh.truncate(places);
        // 1 is what a first read would have set: this may now be started once.
        let claims: Vec<_> = fresh
            .into_iter()
            .map(|row| (row, Claim::FRESH, 1))
            .collect();
        take(lane, places, &claims, 0).await?;
        if !full || enough {
            return Ok(());
        }
    }
}

/// Looks for suspects for as long as the source runs.
pub(crate) async fn search_suspects(lane: Arc<Lane>) {
    let killed = lane.killed.clone();
    let search = async {
        let mut swept_at = lane.now();
        while !lane.table.lock().stopped {
            let waits = take_suspects(&lane).await.unwrap_or(false);
            lane.table.set_suspect_waits(waits);
            if lane.now().saturating_sub(swept_at) > SEARCH * 60 {
                swept_at = lane.now();
                sweep(&lane).await;
            }
            let _ = tokio::time::timeout(SEARCH, lane.table.cleared.notified()).await;
        }
    };
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = search => {}
    }
}

/// Takes what the server has put into our pending list without our knowing.
pub(crate) async fn recover(lane: &Lane) -> Result<(), Broken> {
    let mut after = None;
    let mut left = false;
    loop {
        let rows = rows(lane, None, after, Some(&lane.consumer)).await?;
        let full = rows.len() == PAGE;
        after = rows.last().map(|row| row.id);
        let mut unseen = Vec::new();
        {
            let inner = lane.table.lock();
            for row in rows {
                if inner.knows(row.id) {
                    continue;
                }
                // A first read sets 1, so a larger count was noted by starts.
                let started = row.count > 1;
                let read = Claim {
                    base: if started { row.count } else { 0 },
                    suspect: started,
                    alone: started,
                    answer_lost: true,
                };
                let claim = inner.claims.get(&row.id).copied().unwrap_or(read);
                if claim.answer_lost {
                    let count = row.count;
                    unseen.push((row, claim, count));
                }
            }
        }
        if !unseen.is_empty() {
            let stopped = lane.table.lock().stopped;
            let places = if stopped {
                0
            } else {
                lane.table.reserve(unseen.len())
            };
            left |= places < unseen.len();
            if stopped {
                let ids: Vec<_> = unseen
                    .iter()
                    .map(|(row, claim, _)| (row.id, claim.base))
                    .collect();
                lane.give_back(&ids).await;
            } else {
                unseen.truncate(places);
                take(lane, places, &unseen, 0).await?;
            }
        }
        if !full {
            let mut inner = lane.table.lock();
            inner.unseen = left;
            // A claim whose answer was lost may still be on its way to the server: what it was
            // about is remembered, within reason.
            while inner.claims.len() > 1000 {
                inner.claims.pop_first();
            }
            return Ok(());
        }
    }
}

/// Takes entries whose lock has expired, and those given back with starts noted. Whether one more
/// waits for room.
///
/// As long as it has come back less often than the subscription allows, an entry is taken together
/// with others; from then on only one at a time.
async fn take_suspects(lane: &Lane) -> Result<bool, Broken> {
    let threshold = u64::from(lane.subscription.suspect_returns.max(1));
    let mut one_alone = lane.table.holds_alone();
    let mut after = None;
    loop {
        let rows = rows(lane, Some(lane.lock_ms()), after, None).await?;
        let full = rows.len() == PAGE;
        after = rows.last().map(|row| row.id);
        let mut claims = Vec::new();
        for row in rows {
            if row.owner == lane.consumer || (row.owner == RETURNED && row.count == 0) {
                continue;
            }
            let (alone, count) = (row.count >= threshold, row.count);
            if alone && one_alone {
                continue;
            }
            one_alone |= alone;
            claims.push((
                row,
                Claim {
                    base: count,
                    suspect: true,
                    alone,
                    answer_lost: false,
                },
                count,
            ));
        }
        let places = lane.table.reserve(claims.len());
        let waits = places < claims.len();
        claims.truncate(places);
        take(lane, places, &claims, lane.lock_ms()).await?;
        if waits || !full {
            return Ok(waits);
        }
    }
}

/// Claims these rows if they are still as seen, each with the count to set, and takes them in.
async fn take(
    lane: &Lane,
    places: usize,
    rows: &[(Pending, Claim, u64)],
    idle: u64,
) -> Result<(), Broken> {
    if rows.is_empty() {
        lane.table.unreserve(places);
        return Ok(());
    }
    let mut command = CLAIM.call(&[&lane.keys.stream]);
    command.arg(GROUP).arg(&lane.consumer);
    {
        let mut inner = lane.table.lock();
        for (row, claim, count) in rows {
            command
                .arg(row.id.to_string())
                .arg(&row.owner)
                .arg(row.count)
                .arg(idle)
                .arg(*count);
            inner.claims.insert(
                row.id,
                Claim {
                    answer_lost: false,
                    ..*claim
                },
            );
        }
    }
    let sent = lane.now();
    let reply = scripts::run(&lane.links, lane.keys.slot, command, lane.patience()).await;
    let reply = match reply {
        Ok(reply) => reply,
        Err(broken) => {
            let mut inner = lane.table.lock();
            let answer_lost = matches!(broken, Broken::After(_));
            for (row, claim, _) in rows {
                if answer_lost {
                    inner.claims.insert(
                        row.id,
                        Claim {
                            answer_lost,
                            ..*claim
                        },
                    );
                } else {
                    inner.claims.remove(&row.id);
                }
            }
            inner.unseen |= answer_lost;
            drop(inner);
            lane.table.unreserve(places);
            return Err(broken);
        }
    };
    CrashPoint::TakenOver.reached();
    let claim_of = |id: EntryId| {
        rows.iter()
            .find(|(row, ..)| row.id == id)
            .map(|(_, claim, _)| *claim)
    };
    let taken = entries(reply).into_iter().filter_map(|entry| {
        let claim = claim_of(entry.id)?;
        Some((entry, claim))
    });
    // First taken in, then forgotten as a claim: in between, a comparison would take it for new.
    lane.arrive(places, sent, taken.collect()).await;
    let mut inner = lane.table.lock();
    for (row, ..) in rows {
        inner.claims.remove(&row.id);
    }
    Ok(())
}

/// One page of the pending list. Nothing where the queue is missing: the reader sees to that.
async fn rows(
    lane: &Lane,
    idle: Option<u64>,
    after: Option<EntryId>,
    owner: Option<&str>,
) -> Result<Vec<Pending>, Broken> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("XPENDING").arg(&lane.keys.stream).arg(GROUP);
    if let Some(idle) = idle {
        pipeline.arg("IDLE").arg(idle);
    }
    match after {
        Some(id) => pipeline.arg(format!("({id}")),
        None => pipeline.arg("-"),
    };
    pipeline.arg("+").arg(PAGE);
    if let Some(owner) = owner {
        pipeline.arg(owner);
    }
    if idle.is_some() && after.is_none() {
        // Claims nothing; servers before 7.2 see in a read without result no sign of life.
        pipeline
            .cmd("XCLAIM")
            .arg(&lane.keys.stream)
            .arg(GROUP)
            .arg(&lane.consumer);
        pipeline.arg(0).arg("0-0").arg("JUSTID");
    }
    let replies = lane
        .links
        .exchange(lane.keys.slot, &pipeline, lane.patience())
        .await?;
    Ok(replies
        .into_iter()
        .next()
        .filter(|r| !matches!(r, Value::ServerError(_)))
        .map(pending)
        .unwrap_or_default())
}

async fn sweep(lane: &Lane) {
    let mut command = scripts::LEAVE.call(&[&lane.keys.stream]);
    let age = FORGOTTEN.max(lane.subscription.lock * 10);
    command.arg(GROUP).arg("").arg(age.as_millis() as u64);
    let _ = scripts::run(&lane.links, lane.keys.slot, command, lane.patience()).await;
}
