//! The settler of one source, and the notes of starts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{
    Error, ErrorKind, Receipt, Result, Settlement, Settler, Unsettled, chaos::Flaw,
};
use redis::{Cmd, Value};

use crate::{
    entry::{EntryId, array, int},
    failure::{is_missing, is_passing, refused},
    lane::Lane,
    names::GROUP,
    scripts::{self, START},
    settlement::{settle_all, stale},
};

/// Settles what one source has delivered.
pub(crate) struct RedisSettler(pub(crate) Arc<Lane>);

#[async_trait]
impl Settler for RedisSettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        let lane = &self.0;
        let found: Vec<_> = starts
            .iter()
            .map(|(receipt, number)| find(lane, receipt, *number))
            .collect();
        let mut command = START.call(&[&lane.keys.stream]);
        command.arg(GROUP).arg(&lane.consumer);
        for (id, noted) in found.iter().flatten() {
            command.arg(id.to_string()).arg(*noted);
        }
        let sent = lane.now();
        let answers = if found.iter().any(Option::is_some) {
            noted(lane, command).await
        } else {
            Ok(Vec::new())
        };
        let mut answers = answers.map(Vec::into_iter);
        let mut results = Vec::with_capacity(starts.len());
        for ((receipt, _), found) in starts.iter().zip(found) {
            results.push(match (found, &mut answers) {
                (None, _) => Err(stale()),
                (Some(_), Err(error)) => Err(error.again()),
                (Some(_), Ok(answers)) => {
                    if answers.next() != Some(1) {
                        lane.table.remove(&[receipt.tag[0]]);
                        results.push(Err(stale()));
                        continue;
                    }
                    if let Some(held) = lane.table.lock().held.get_mut(&receipt.tag[0]) {
                        held.certain_until = sent + lane.subscription.lock;
                    }
                    Ok(())
                }
            });
        }
        results
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        let count = batch.len();
        let lane = Arc::clone(&self.0);
        // On a task of its own, so that whoever drops the future cannot leave it half done.
        let settled = tokio::spawn(settle_all(lane, batch)).await;
        settled.unwrap_or_else(|_| unfinished(count))
    }
}

/// The answers to so many settlements that were cut off.
pub(crate) fn unfinished(count: usize) -> Vec<Result<(), Unsettled>> {
    let unknown = || Unsettled {
        error: Error::new(
            ErrorKind::Unknown,
            "the runtime stopped during the settlement",
        ),
        settlement: None,
    };
    (0..count).map(|_| Err(unknown())).collect()
}

/// Sends the starts until they are answered or the confirmation time-out is over. Sending them twice
/// notes them once: the script sets the number.
async fn noted(lane: &Lane, command: Cmd) -> Result<Vec<i64>> {
    let deadline = lane.now() + lane.site.options.confirm_timeout;
    loop {
        let limit = deadline.saturating_sub(lane.now()).min(lane.patience());
        let reply = scripts::run(&lane.links, lane.keys.slot, command.clone(), limit).await;
        let error = match reply {
            Ok(Value::ServerError(error)) if is_missing(&error) => return Ok(Vec::new()),
            Ok(Value::ServerError(error)) if is_passing(&error) => refused(&error),
            Ok(Value::ServerError(error)) => return Err(refused(&error)),
            Ok(reply) => return Ok(array(reply).iter().filter_map(int).collect()),
            Err(broken) => broken.into_error(),
        };
        if lane.now() + Duration::from_millis(100) > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The entry, and the count that says that the start with this number has happened: the entry
/// itself may know of starts of earlier copies.
fn find(lane: &Lane, receipt: &Receipt, number: u32) -> Option<(EntryId, u64)> {
    let inner = lane.table.lock();
    let held = inner
        .held
        .get(&receipt.tag[0])
        .filter(|_| receipt.scope == lane.table.scope)?;
    let first = held.base + 1;
    if Flaw::AttemptsInMemory.on() {
        return Some((held.id, 1));
    }
    let further = number.saturating_sub(held.attempt);
    Some((held.id, first + u64::from(further)))
}
