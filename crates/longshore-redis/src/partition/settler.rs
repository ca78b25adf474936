//! The settler of one partition, and the notes of starts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{Receipt, Result, Settlement, Settler, Unsettled, chaos::Flaw};
use redis::{Cmd, Value};

use super::{Partition, settlement};
use crate::{
    entry::{EntryId, array, int},
    failure::{is_missing, is_passing, refused},
    names::GROUP,
    scripts::{self, START_PARTITION},
    settlement::stale,
    settler::unfinished,
};

/// Settles what one partition has delivered.
pub(crate) struct PartitionSettler(pub(crate) Arc<Partition>);

#[async_trait]
impl Settler for PartitionSettler {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        let partition = &self.0;
        let found: Vec<_> = starts
            .iter()
            .map(|(receipt, attempt)| find(partition, receipt, *attempt))
            .collect();
        let lease = &partition.lease;
        let mut command = START_PARTITION.call(&[&partition.keys.stream, &lease.key.name]);
        command.arg(GROUP).arg(&lease.owner);
        for (id, noted) in found.iter().flatten() {
            command.arg(id.to_string()).arg(*noted);
        }
        let answers = if found.iter().any(Option::is_some) {
            noted(partition, command).await
        } else {
            Ok(Vec::new())
        };
        let mut answers = answers.map(Vec::into_iter);
        let each = starts.iter().zip(found).map(|((receipt, _), found)| {
            let answers = match (found, &mut answers) {
                (None, _) => return Err(stale()),
                (Some(_), Err(error)) => return Err(error.again()),
                (Some(_), Ok(answers)) => answers,
            };
            if answers.next() != Some(1) {
                partition.table.remove(&[receipt.tag[0]]);
                return Err(stale());
            }
            Ok(())
        });
        each.collect()
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        let count = batch.len();
        let partition = Arc::clone(&self.0);
        // On a task of its own, so that whoever drops the future cannot leave it half done.
        let settled = tokio::spawn(settlement::settle_all(partition, batch)).await;
        settled.unwrap_or_else(|_| unfinished(count))
    }
}

/// Sends the starts until they are answered or the confirmation time-out is over. Sending them twice
/// notes them once: the script sets the number.
async fn noted(partition: &Partition, command: Cmd) -> Result<Vec<i64>> {
    let deadline = partition.now() + partition.site.options.confirm_timeout;
    loop {
        let left = deadline.saturating_sub(partition.now());
        let limit = left.min(partition.patience());
        let (links, slot) = (&partition.links, partition.keys.slot);
        let error = match scripts::run(links, slot, command.clone(), limit).await {
            Ok(Value::ServerError(error)) if is_missing(&error) => return Ok(Vec::new()),
            Ok(Value::ServerError(error)) if is_passing(&error) => refused(&error),
            Ok(Value::ServerError(error)) => return Err(refused(&error)),
            Ok(reply) => return Ok(array(reply).iter().filter_map(int).collect()),
            Err(broken) => broken.into_error(),
        };
        if partition.now() + Duration::from_millis(100) > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The entry of a receipt, and the starts to note for one with this number.
fn find(partition: &Partition, receipt: &Receipt, attempt: u32) -> Option<(EntryId, u32)> {
    let inner = partition.table.lock();
    let held = inner.held.get(&receipt.tag[0]);
    let held = held.filter(|_| receipt.scope == partition.table.scope)?;
    if Flaw::AttemptsInMemory.on() {
        return Some((held.id, 1));
    }
    let claimed = settlement::claimed(held.attempt, held.base);
    Some((held.id, attempt.saturating_sub(claimed).max(1)))
}
