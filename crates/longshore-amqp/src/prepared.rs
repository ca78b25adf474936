//! What must be there before something is published, and has been found or made already.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use lapin::types::FieldTable;
use longshore_core::{Declare, Error, ErrorKind, Result};

use crate::{
    delay::Ladder,
    link::{Link, State},
    objects::{declare_queue, look, verify_topic},
    session::Session,
};

/// Remembers per connection, because a broker that was gone may have come back empty.
///
/// Asking also waits until a queue has a leader: what is published to one without, right after a
/// restart, RabbitMQ loses on its way and notices only 10 s later.
pub(crate) struct Prepared {
    link: Arc<Link>,
    /// Somebody asked this client to create nothing.
    verify_only: AtomicBool,
    seen: Mutex<Seen>,
    asking: tokio::sync::Mutex<()>,
}

/// What must be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Queue(String),
    /// Publishing to none would close the channel for everybody.
    Topic(String),
    Ladder,
}

#[derive(Default)]
struct Seen {
    epoch: u64,
    needs: BTreeSet<Need>,
}

/// Names remembered at most; beyond that all are asked for again.
const MOST: usize = 4096;

impl Prepared {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            verify_only: AtomicBool::new(false),
            seen: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// From now on this client creates no ladder.
    pub(crate) fn heed(&self, mode: Declare) {
        if mode == Declare::Verify {
            self.verify_only.store(true, Ordering::Relaxed);
        }
    }

    /// Looks for many queues at once, so that asking for each is quick. What is missing, or cannot be
    /// asked for now, shows then.
    pub(crate) async fn look_ahead(&self, needs: &BTreeSet<Need>) {
        let session = match &*self.link.watch().borrow() {
            State::Up(session) if !*session.blocked().borrow() => session.clone(),
            _ => return,
        };
        let names: Vec<String> = {
            let seen = self.seen();
            let unseen = needs
                .iter()
                .filter(|need| !seen.contains(session.epoch, need));
            let queues = unseen.filter_map(|need| match need {
                Need::Queue(name) => Some(name.clone()),
                Need::Topic(_) | Need::Ladder => None,
            });
            queues.collect()
        };
        if names.len() > 1 && look(&session, &names).await.is_ok() {
            let mut seen = self.seen();
            for name in names {
                seen.add(session.epoch, &Need::Queue(name));
            }
        }
    }

    /// Makes sure of one thing.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchQueue`], or nobody could be asked. Nothing was published either way.
    pub(crate) async fn has(&self, need: &Need) -> Result<()> {
        if let State::Up(session) = &*self.link.watch().borrow()
            && self.seen().contains(session.epoch, need)
        {
            return Ok(());
        }
        let session = self.link.session().await?;
        // One asks, the others find the answer.
        let asking = self.asking.lock().await;
        if self.seen().contains(session.epoch, need) {
            return Ok(());
        }
        let asked = match need {
            Need::Queue(queue) => {
                let none = FieldTable::default();
                let found = declare_queue(&session, queue, none, Declare::Verify).await;
                found.map(drop)
            }
            Need::Topic(topic) => verify_topic(&session, topic).await,
            Need::Ladder => self.ladder(&session).await,
        };
        drop(asking);
        match asked {
            Ok(()) => {
                self.seen().add(session.epoch, need);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && *session.blocked().borrow() => {
                Err(Error::new(
                    ErrorKind::Full,
                    "the broker takes no messages for want of memory or disk",
                ))
            }
            Err(error) => Err(error),
        }
    }

    async fn ladder(&self, session: &Session) -> Result<()> {
        match self.verify_only.load(Ordering::Relaxed) {
            true => Ladder::verify(session).await.map_err(|error| {
                let why = "the delay ladder is missing and this client creates nothing; let a \
                           client that may create publish one delayed message";
                Error::new(error.kind(), why).because(error)
            }),
            false => {
                Ladder::declare(session).await?;
                Ladder::verify(session).await
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn contains(&self, epoch: u64, need: &Need) -> bool {
        self.epoch == epoch && self.needs.contains(need)
    }

    fn add(&mut self, epoch: u64, need: &Need) {
        if self.epoch != epoch || self.needs.len() >= MOST {
            self.needs.clear();
            self.epoch = epoch;
        }
        self.needs.insert(need.clone());
    }
}

/// What was published went nowhere although it was there before.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NoSuchQueue
}
