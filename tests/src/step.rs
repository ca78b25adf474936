//! The message of the whole-system tests of sessions.

use longshore::{Client, Draft, Message, Queue, Result};
use serde::{Deserialize, Serialize};

/// One numbered step of one session.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Step {
    /// Of which session.
    pub key: u64,
    /// Which step of it, from 0.
    pub number: u64,
    /// Whether every try of it fails.
    pub fails: bool,
}

impl Message for Step {
    const TYPE: &'static str = "step";
}

impl Step {
    /// The number that names it in a history.
    pub fn message(&self) -> u64 {
        (self.key << 32) | self.number
    }

    /// The key of its session.
    pub fn session(&self) -> String {
        format!("key-{}", self.key)
    }

    /// The message that carries it.
    pub fn draft(&self) -> Draft {
        let Self { key, number, .. } = self;
        Draft::new(self)
            .key(self.session())
            .id(format!("step-{key}-{number}"))
    }
}

/// Publishes steps in order, a batch confirmed before the next.
///
/// # Errors
/// The first publish that was not confirmed.
pub async fn publish_steps(client: &Client, queue: &Queue, steps: &[Step]) -> Result<()> {
    for batch in steps.chunks(500) {
        let drafts = batch.iter().map(Step::draft);
        for answer in client.publish_all(queue, drafts).await {
            answer?;
        }
    }
    Ok(())
}
