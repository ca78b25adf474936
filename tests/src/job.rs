//! The message of the whole-system tests.

use longshore::{Client, Draft, Message, Published, Queue, Result};
use serde::{Deserialize, Serialize};

/// A numbered piece of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Which one.
    pub number: u64,
}

impl Message for Job {
    const TYPE: &'static str = "job";
}

/// Publishes jobs 0 to `count` − 1, each with its number as id.
///
/// # Errors
/// The first publish that was not accepted.
pub async fn publish_jobs(client: &Client, queue: &Queue, count: u64) -> Result<()> {
    let numbers: Vec<u64> = (0..count).collect();
    for batch in numbers.chunks(1_000) {
        let drafts = batch
            .iter()
            .map(|&number| Draft::new(&Job { number }).id(format!("job-{number}")));
        for answer in client.publish_all(queue, drafts).await {
            let Published::Accepted = answer? else {
                continue;
            };
        }
    }
    Ok(())
}
