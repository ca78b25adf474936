//! The only place where deliveries are settled.

use std::{sync::Arc, time::Duration};

use longshore_core::{ErrorKind, Settlement, Verdict};

use super::{SharedRef, intake::Desk};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Settles a batch: the one call of [`Settler::settle`](longshore_core::Settler::settle).
///
/// What the broker could not do is tried again for as long as the lock is held: until then nobody
/// else can have the message, and giving up would leave it hidden.
pub(super) async fn settle(shared: SharedRef, desk: Arc<Desk>, mut batch: Vec<Settlement>) {
    let mut pause = FIRST_PAUSE;
    let clock = Arc::clone(shared.client.clock());
    let work = &shared.work;
    while !batch.is_empty() {
        let verdicts: Vec<Verdict> = batch.iter().map(|s| s.verdict.clone()).collect();
        let begun = clock.monotonic();
        let answers = desk.settler.settle(batch).await;
        work.settle.record(clock.monotonic().saturating_sub(begun));
        let asked = verdicts.len();
        let mut again = Vec::new();
        for (verdict, answer) in verdicts.iter().zip(answers) {
            let refused = match answer {
                Ok(()) => {
                    work.settled(verdict).increment(1);
                    continue;
                }
                Err(refused) => refused,
            };
            if refused.error.kind() == ErrorKind::Stale {
                work.stale.increment(1);
                tracing::warn!(queue = %work.queue, "a settlement came too late: the lock was lost");
            } else {
                work.unsettled.increment(1);
                tracing::warn!(queue = %work.queue, error = %refused.error, "a settlement was not confirmed");
            }
            again.extend(refused.settlement.map(|settlement| *settlement));
        }
        shared.intake.done(&desk, asked - again.len());
        batch = again;
        if !batch.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
