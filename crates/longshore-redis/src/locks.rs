//! Renewal of locks, on a thread with a runtime and a connection of its own: handlers that block
//! their runtime must not lose their locks for it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use longshore_core::{Error, ErrorKind, Result, chaos::Flaw};
use redis::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    entry::{EntryId, array, int},
    failure::is_missing,
    lane::Lane,
    link::Links,
    names::GROUP,
    scripts::{self, RENEW},
    site::Site,
};

/// Ids in one script: they pass through Lua's stack.
const CHUNK: usize = 500;

/// The thread and what it renews.
pub(crate) struct Renewal {
    watched: Arc<Watched>,
    runtime: tokio::runtime::Handle,
    /// Used on that thread alone: a connection belongs to the runtime that opened it.
    links: Arc<Links>,
}

struct Watched {
    lanes: Mutex<Vec<Weak<Lane>>>,
    changed: Notify,
}

impl Renewal {
    /// Starts the thread. It ends when the token is cancelled.
    pub(crate) fn start(site: Arc<Site>, killed: CancellationToken) -> Result<Self> {
        let watched = Arc::new(Watched {
            lanes: Mutex::new(Vec::new()),
            changed: Notify::new(),
        });
        let failed = |error: std::io::Error| {
            Error::new(
                ErrorKind::Unavailable,
                "the thread that renews locks could not be started",
            )
            .because(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let own = Arc::clone(&watched);
        let handle = runtime.handle().clone();
        let kept = Arc::new(Links::new(site, "locks"));
        let links = Arc::clone(&kept);
        let renew = move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = killed.cancelled() => {}
                    () = own.run(&links) => {}
                }
                links.close();
            });
        };
        std::thread::Builder::new()
            .name("longshore-locks".into())
            .spawn(renew)
            .map_err(failed)?;
        Ok(Self {
            watched,
            runtime: handle,
            links: kept,
        })
    }

    /// Does this on the same thread, over its connections.
    pub(crate) fn spawn<W>(&self, work: impl FnOnce(Arc<Links>) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(work(Arc::clone(&self.links)));
    }

    /// Renews what this lane holds for as long as the lane lives.
    pub(crate) fn watch(&self, lane: &Arc<Lane>) {
        let mut lanes = self
            .watched
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(lane));
        drop(lanes);
        self.watched.changed.notify_one();
    }
}

impl Watched {
    async fn run(&self, links: &Links) {
        loop {
            let lanes: Vec<Arc<Lane>> = {
                let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                lanes.iter().filter_map(Weak::upgrade).collect()
            };
            // Looking more often than renewing keeps the renewals near a third of the lock.
            let tick = lanes.iter().map(|lane| lane.subscription.lock / 12).min();
            let tick = tick.unwrap_or(Duration::from_secs(60));
            let tick = tick.clamp(Duration::from_millis(20), Duration::from_secs(5));
            // Together, so that one server that does not answer delays no other's locks.
            join_all(lanes.iter().map(|lane| renew(lane, links))).await;
            drop(lanes);
            let _ = tokio::time::timeout(tick, self.changed.notified()).await;
        }
    }
}

async fn renew(lane: &Lane, links: &Links) {
    let soon = lane.now() + lane.subscription.lock * 2 / 3;
    let due: Vec<(u64, EntryId)> = {
        let inner = lane.table.lock();
        if inner.abandoned || Flaw::NoRenewal.on() {
            return;
        }
        let due = inner
            .held
            .iter()
            .filter(|(_, held)| held.certain_until <= soon);
        due.map(|(tag, held)| (*tag, held.id)).collect()
    };
    for chunk in due.chunks(CHUNK) {
        let mut command = RENEW.call(&[&lane.keys.stream]);
        command.arg(GROUP).arg(&lane.consumer);
        for (_, id) in chunk {
            command.arg(id.to_string());
        }
        let sent = lane.now();
        let limit = lane
            .patience()
            .min((lane.subscription.lock / 3).max(Duration::from_millis(100)));
        let answers: Vec<Option<i64>> =
            match scripts::run(links, lane.keys.slot, command, limit).await {
                // Without its group nothing is anybody's.
                Ok(Value::ServerError(error)) if is_missing(&error) => {
                    chunk.iter().map(|_| Some(0)).collect()
                }
                Ok(reply) => array(reply).iter().map(int).collect(),
                Err(broken) => {
                    tracing::debug!(error = %broken.into_error(), "locks could not be renewed");
                    return;
                }
            };
        let mut lost = Vec::new();
        {
            let mut inner = lane.table.lock();
            for ((tag, _), answer) in chunk.iter().zip(answers) {
                match answer {
                    Some(1) => {
                        if let Some(held) = inner.held.get_mut(tag) {
                            held.certain_until =
                                held.certain_until.max(sent + lane.subscription.lock);
                        }
                    }
                    Some(0) => lost.push(*tag),
                    _ => {}
                }
            }
        }
        if !lost.is_empty() {
            lane.table.lose(&lost);
        }
    }
}
