//! What must be there before something is published, and has been found or made already.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lapin::types::FieldTable;
use longshore_core::{Declare, Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::{
    delay::Ladder,
    link::Link,
    session::Session,
    topology::{declare_queue, verify_topic},
};

/// Remembers per connection, because a broker that was gone may have come back empty.
pub(crate) struct Prepared {
    link: Arc<Link>,
    /// Somebody asked this client to create nothing.
    verify_only: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    epoch: u64,
    ladder: bool,
    topics: BTreeSet<String>,
    queues: BTreeSet<String>,
}

/// Names remembered at most; beyond that the oldest knowledge is dropped.
const MOST: usize = 4096;

impl Prepared {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            verify_only: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// From now on this client creates no ladder.
    pub(crate) fn heed(&self, mode: Declare) {
        if mode == Declare::Verify {
            self.verify_only.store(true, Ordering::Relaxed);
        }
    }

    /// Makes sure of the delay ladder.
    pub(crate) async fn ladder(&self) -> Result<()> {
        let session = self.link.session().await?;
        let mut seen = self.seen.lock().await;
        seen.start(&session);
        if seen.ladder {
            return Ok(());
        }
        match self.verify_only.load(Ordering::Relaxed) {
            true => Ladder::verify(&session).await.map_err(|error| {
                let why = "the delay ladder is missing and this client creates nothing; let a \
                           client that may create publish one delayed message";
                Error::new(error.kind(), why).because(error)
            })?,
            false => Ladder::declare(&session).await?,
        }
        seen.ladder = true;
        Ok(())
    }

    /// Makes sure that a topic exists: publishing to none would close the channel for everybody.
    pub(crate) async fn topic(&self, topic: &str) -> Result<()> {
        let session = self.link.session().await?;
        let mut seen = self.seen.lock().await;
        seen.start(&session);
        if !seen.topics.contains(topic) {
            verify_topic(&session, topic).await?;
            seen.topics.insert(topic.to_owned());
        }
        Ok(())
    }

    /// Makes sure that a queue exists before something is delayed to it: the ladder takes anything.
    pub(crate) async fn queue(&self, queue: &str) -> Result<()> {
        let session = self.link.session().await?;
        let mut seen = self.seen.lock().await;
        seen.start(&session);
        if !seen.queues.contains(queue) {
            let none = FieldTable::default();
            declare_queue(&session, queue, none, Declare::Verify).await?;
            seen.queues.insert(queue.to_owned());
        }
        Ok(())
    }
}

impl Seen {
    fn start(&mut self, session: &Session) {
        if self.epoch != session.epoch || self.topics.len() + self.queues.len() > MOST {
            *self = Self {
                epoch: session.epoch,
                ..Self::default()
            };
        }
    }
}

/// What was published went nowhere although it was there before.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NoSuchQueue
}
