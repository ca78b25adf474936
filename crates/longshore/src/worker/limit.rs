//! Stops a worker from taking messages while its queue has too many dead letters.

use std::time::Duration;

use longshore_core::Text;

use super::{
    SharedRef,
    notice::{Notice, Reader},
    trouble::Of,
};
use crate::Queue;

/// How often the number of dead letters is looked at where there is a limit.
const LOOK: Duration = Duration::from_secs(5);
/// And while there are too many.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whether a worker may take messages, as far as the dead letters of its queue are concerned.
pub(super) struct Limit {
    shared: SharedRef,
    queue: Queue,
    may: Notice<bool>,
}

impl Limit {
    /// Looks for the first time.
    pub(super) async fn new(shared: SharedRef, queue: Queue) -> Self {
        let limit = Self {
            shared,
            queue,
            may: Notice::new(true),
        };
        limit.look().await;
        limit
    }

    pub(super) fn may(&self) -> Reader<bool> {
        self.may.reader()
    }

    /// Looks for ever.
    pub(super) async fn keep(&self) {
        if self.shared.settings.dead_letter_limit.is_none() {
            std::future::pending::<()>().await;
        }
        loop {
            let pause = if self.may.get() { LOOK } else { LOOK_AGAIN };
            tokio::time::sleep(pause).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let Some(limit) = self.shared.settings.dead_letter_limit else {
            return;
        };
        // A broker that cannot say is no reason to stop: the next look will tell.
        let Ok(stats) = self.shared.client.stats(&self.queue).await else {
            return;
        };
        let dead = stats.dead;
        let trouble: Option<Text> = (dead >= limit).then(|| {
            format!("{dead} dead letters, the limit is {limit}: redrive or discard some").into()
        });
        let may = trouble.is_none();
        self.may
            .change(|known| std::mem::replace(known, may) != may);
        self.shared.trouble.set(Of::DeadLetters, trouble);
    }
}
