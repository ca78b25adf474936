//! The message everybody sends.

use std::{sync::LazyLock, time::Instant};

use longshore::Message;
use serde::{Deserialize, Serialize};

/// The message everybody sends: about 170 bytes of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Which run it belongs to, so that what an earlier one left behind is not counted.
    pub(crate) run: u32,
    /// From 0, each once in a run.
    pub(crate) number: u32,
    /// When it was published: nanoseconds since the program started.
    pub(crate) sent: u64,
    customer: String,
    sku: String,
    quantity: u32,
    price_cents: u64,
    currency: String,
    note: String,
}

impl Message for Job {
    const TYPE: &'static str = "bench.job";
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the program started.
pub(crate) fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Job {
    /// The job of this number, sent now.
    pub(crate) fn new(run: u32, number: u32) -> Self {
        Self {
            run,
            number,
            sent: now(),
            customer: format!("c-{number:08}"),
            sku: "LS-4711-BLUE".to_owned(),
            quantity: 3,
            price_cents: 12_995,
            currency: "EUR".to_owned(),
            note: "leave at the door, ring twice".to_owned(),
        }
    }

    /// The body on the wire.
    ///
    /// # Errors
    /// None that can happen: it has only fields that JSON knows.
    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_about_170_bytes_and_comes_back() {
        let body = Job::new(3, 123_456).encode().expect("JSON");
        assert!((165..=190).contains(&body.len()), "{}", body.len());
        let job: Job = serde_json::from_slice(&body).expect("the same type");
        assert_eq!((job.run, job.number), (3, 123_456));
    }
}
