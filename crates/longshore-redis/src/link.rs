//! Connections and their supervision.
//!
//! A link is one connection that is opened when it is needed, given up at the first sign of
//! trouble, and opened again with a growing pause between tries. Nothing is ever repeated here:
//! what became of a request that got no answer is for the caller to find out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use longshore_core::{Error, ErrorKind, Result};
use redis::{Pipeline, Value};
use tokio::sync::OwnedMutexGuard;

use crate::{
    failure::{Broken, unanswered},
    site::{Opened, Place, Site},
};

/// One supervised connection.
pub(crate) struct Link {
    site: Arc<Site>,
    place: Place,
    role: &'static str,
    current: Current,
    dial: Arc<tokio::sync::Mutex<Dial>>,
}

/// The open connection and how many there were before it.
type Current = Arc<Mutex<Option<(u64, Opened)>>>;

/// The links of one duty: one, or one per node of a cluster.
pub(crate) struct Links {
    site: Arc<Site>,
    role: &'static str,
    by_place: Mutex<BTreeMap<Place, Arc<Link>>>,
}

struct Dial {
    epoch: u64,
    pauses: Option<ExponentialBackoff>,
    not_before: Duration,
    failure: (ErrorKind, String),
}

impl Link {
    pub(crate) fn new(site: Arc<Site>, place: Place, role: &'static str) -> Self {
        Self {
            site,
            place,
            role,
            current: Arc::default(),
            dial: Arc::new(tokio::sync::Mutex::new(Dial {
                epoch: 0,
                pauses: None,
                not_before: Duration::ZERO,
                failure: (ErrorKind::Unavailable, String::new()),
            })),
        }
    }

    /// Sends these commands in one write and waits for all replies, errors of the server among
    /// them. After a time-out the connection is given up.
    pub(crate) async fn exchange(
        &self,
        pipeline: &Pipeline,
        limit: Duration,
    ) -> Result<Vec<Value>, Broken> {
        let until = tokio::time::Instant::now() + limit;
        let (epoch, mut opened) = in_time(until, self.opened())
            .await
            .map_err(Broken::Before)?;
        let error = match tokio::time::timeout_at(until, opened.exchange(pipeline)).await {
            Ok(Ok(replies)) => {
                if replies.iter().any(moved_away) {
                    // The next exchange asks anew where the slot or the master is.
                    self.site.forget_slots();
                    self.give_up(epoch);
                }
                return Ok(replies);
            }
            Ok(Err(error)) => unanswered(&self.site.address, &error),
            Err(_) => Error::new(
                ErrorKind::Unknown,
                format!("redis did not answer within {limit:?}; it may have happened or not"),
            ),
        };
        self.give_up(epoch);
        Err(Broken::After(error))
    }

    /// Opens the connection if it is not.
    pub(crate) async fn ensure(&self) -> Result<()> {
        self.opened().await.map(|_| ())
    }

    /// How long to wait before trying again is worth it.
    pub(crate) async fn pause(&self) -> Duration {
        let dial = self.dial.lock().await;
        let now = self.site.options.clock.monotonic();
        dial.not_before
            .saturating_sub(now)
            .max(Duration::from_millis(10))
    }

    /// Closes the connection as soon as nobody uses it.
    pub(crate) fn close(&self) {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    async fn opened(&self) -> Result<(u64, Opened)> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let dial = Arc::clone(&self.dial).lock_owned().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        if self.site.options.clock.monotonic() < dial.not_before {
            let (kind, text) = &dial.failure;
            return Err(Error::new(*kind, text.clone()));
        }
        let (site, place, role) = (Arc::clone(&self.site), self.place.clone(), self.role);
        let current = Arc::clone(&self.current);
        // On a task of its own: a caller that cannot wait so long must not begin it anew each time.
        let dialling = tokio::spawn(dial_once(site, place, role, dial, current));
        dialling.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unavailable,
                "the runtime of this connection has stopped",
            ))
        })
    }

    fn current(&self) -> Option<(u64, Opened)> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(_, opened)| opened.is_down()) {
            current.take();
        }
        current.clone()
    }

    fn give_up(&self, epoch: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(of, _)| *of == epoch) {
            current.take();
        }
    }
}

impl Links {
    pub(crate) fn new(site: Arc<Site>, role: &'static str) -> Self {
        Self {
            site,
            role,
            by_place: Mutex::new(BTreeMap::new()),
        }
    }

    /// The link to whichever server holds this slot.
    pub(crate) async fn link(&self, slot: u16) -> Result<Arc<Link>> {
        let place = match self.site.node_of(slot).await? {
            Some(host) => Place::Node(host),
            None => Place::Slot(0),
        };
        let mut by_place = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
        let link = by_place
            .entry(place.clone())
            .or_insert_with(|| Arc::new(Link::new(Arc::clone(&self.site), place, self.role)));
        Ok(Arc::clone(link))
    }

    /// [`Link::exchange`] with the server of this slot.
    pub(crate) async fn exchange(
        &self,
        slot: u16,
        pipeline: &Pipeline,
        limit: Duration,
    ) -> Result<Vec<Value>, Broken> {
        let until = tokio::time::Instant::now() + limit;
        let link = in_time(until, self.link(slot))
            .await
            .map_err(Broken::Before)?;
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        link.exchange(pipeline, left).await
    }

    pub(crate) fn close(&self) {
        let by_place = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
        by_place.values().for_each(|link| link.close());
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// 50 ms doubling to 1 s, with jitter so that many clients do not come back at once.
pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

async fn dial_once(
    site: Arc<Site>,
    place: Place,
    role: &'static str,
    mut dial: OwnedMutexGuard<Dial>,
    current: Current,
) -> Result<(u64, Opened)> {
    match site.open(&place, role).await {
        Ok(_) if site.closed.is_cancelled() => {
            Err(Error::new(ErrorKind::Closed, "the client was closed"))
        }
        Ok(opened) => {
            dial.epoch += 1;
            dial.pauses = None;
            let new = (dial.epoch, opened);
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(new.clone());
            Ok(new)
        }
        Err(error) => {
            let pause = dial.pauses.get_or_insert_with(pauses).next();
            dial.not_before = site.options.clock.monotonic() + pause.unwrap_or(LONGEST_PAUSE);
            dial.failure = (error.kind(), error.to_string());
            Err(error)
        }
    }
}

/// The outcome of what comes before anything is sent.
async fn in_time<T>(
    until: tokio::time::Instant,
    preparing: impl Future<Output = Result<T>>,
) -> Result<T> {
    let prepared = tokio::time::timeout_at(until, preparing).await;
    prepared.unwrap_or_else(|_| {
        let text = "no connection to Redis could be opened in time; nothing was sent";
        Err(Error::new(ErrorKind::Unavailable, text))
    })
}

fn moved_away(reply: &Value) -> bool {
    const CODES: [&str; 5] = ["MOVED", "ASK", "CLUSTERDOWN", "READONLY", "MASTERDOWN"];
    matches!(reply, Value::ServerError(error) if CODES.contains(&error.code()))
}
