//! Keeps the ids of running messages taken.

use std::time::Duration;

use longshore_core::{Receipt, chaos::Flaw};

use super::SharedRef;

/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Renews at a third of the lock for as long as the worker lives. A handler whose id was lost is
/// cancelled: another copy may be running.
pub(super) async fn keep(shared: SharedRef) {
    let dedup = &shared.dedup;
    let store = &shared.client.books().store;
    let third = dedup.lease() / 3;
    let mut pause = third;
    while !Flaw::NoRenewal.on() {
        tokio::time::sleep(pause).await;
        pause = third;
        for held in dedup.leases() {
            let asked = dedup.now();
            let renewing = store.renew(&held.scope, &held.leases, dedup.lease());
            let left = held.until.saturating_sub(asked).max(AGAIN);
            let answer = tokio::time::timeout(left.min(third), renewing).await;
            let answers = answer.ok().and_then(Result::ok);
            if answers.is_none() {
                pause = AGAIN.min(third);
            }
            let until = asked + dedup.lease();
            let lost: Vec<Receipt> = dedup.renewed(&held.receipts, answers.as_deref(), until);
            if !lost.is_empty() {
                tracing::warn!(queue = %shared.work.queue, messages = lost.len(),
                    "a dedup lease was lost while its message was running");
                shared.intake.lose(&lost);
            }
        }
    }
}
