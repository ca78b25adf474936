//! The promoter: moves delayed messages to their stream when their time has come. One per process for
//! all lanes of a queue, for as long as the process consumes any.

use std::{sync::Arc, time::Duration};

use longshore_core::{Declare, chaos::CrashPoint};
use redis::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    entry::{array, int},
    failure::{checked, unexpected},
    lane::Lane,
    link::{Link, Links, pauses},
    names::Keys,
    scripts::{self, PROMOTE},
    site::{Place, Site, patience},
};

/// Messages moved by one script.
const MOVED_AT_ONCE: i64 = 100;
/// How long to wait for a word that the head has changed before looking anyway.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the promoter of one queue running until it is dropped.
pub(crate) struct Promoter {
    _stop: DropGuard,
}

/// What one promoter works with.
pub(crate) struct Work {
    site: Arc<Site>,
    links: Arc<Links>,
    keys: Keys,
    may_create: bool,
    stopped: CancellationToken,
}

impl Promoter {
    /// A promoter for all lanes beside this one, and its work to be spawned.
    pub(crate) fn new(lane: &Lane) -> (Self, Work) {
        let around = (Arc::clone(&lane.site), Arc::clone(&lane.links));
        let may_create = lane.subscription.declare == Declare::Create;
        Self::of(around, lane.keys.clone(), may_create, &lane.killed)
    }

    /// The same for the keys of any part.
    pub(crate) fn of(
        (site, links): (Arc<Site>, Arc<Links>),
        keys: Keys,
        may_create: bool,
        killed: &CancellationToken,
    ) -> (Self, Work) {
        let stopped = killed.child_token();
        let work = Work {
            site,
            links,
            keys,
            may_create,
            stopped: stopped.clone(),
        };
        (
            Self {
                _stop: stopped.drop_guard(),
            },
            work,
        )
    }
}

impl Work {
    /// Promotes until stopped.
    pub(crate) async fn run(self) {
        let stopped = self.stopped.clone();
        tokio::select! {
            biased;
            () = stopped.cancelled() => {}
            () = self.promote() => {}
        }
    }

    async fn promote(&self) {
        let link = Link::new(Arc::clone(&self.site), Place::Slot(self.keys.slot), "delay");
        let mut wake = Box::pin(self.wake(&link));
        let mut delays = pauses();
        loop {
            let due = match self.move_due().await {
                Ok(due) => {
                    delays = pauses();
                    due
                }
                Err(error) => {
                    tracing::debug!(queue = %self.keys.scope, %error, "delayed messages cannot be moved just now");
                    delays.next().unwrap_or(LOOK)
                }
            };
            if due.is_zero() {
                continue;
            }
            // The wait on the server goes on while the local timer fires: a server looks at its own
            // time-outs only ten times a second.
            let changed = tokio::select! {
                biased;
                () = wake.as_mut() => true,
                () = tokio::time::sleep(due) => false,
            };
            if changed {
                wake.set(self.wake(&link));
            } else if due < LOOK {
                CrashPoint::Promoting.reached();
            }
        }
    }

    /// Moves what is due and says when to look again.
    async fn move_due(&self) -> longshore_core::Result<Duration> {
        let keys = &self.keys;
        loop {
            let mut command = PROMOTE.call(&[
                &keys.delayed(),
                &Keys::new(&self.site.options.key_prefix, &keys.scope).stream,
                &keys.dead(),
                &keys.meta(),
            ]);
            command
                .arg(MOVED_AT_ONCE)
                .arg(i64::from(self.may_create))
                .arg(&*keys.scope)
                .arg(keys.base());
            let reply = scripts::run(
                &self.links,
                keys.slot,
                command,
                patience(&self.site.options),
            )
            .await;
            let reply = checked(reply.map_err(crate::failure::Broken::into_error)?)?;
            let numbers: Vec<i64> = array(reply).iter().filter_map(int).collect();
            let [moved, next, missing] = numbers[..] else {
                return Err(unexpected());
            };
            if moved > 0 {
                CrashPoint::Promoted.reached();
            }
            if missing == 1 {
                return Ok(LOOK);
            }
            if moved < MOVED_AT_ONCE {
                let next = u64::try_from(next).map_or(LOOK, Duration::from_millis);
                return Ok(next.clamp(Duration::from_millis(1), LOOK));
            }
        }
    }

    /// Ends when the head of the delayed set may have changed.
    async fn wake(&self, link: &Link) {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("BLPOP")
            .arg(self.keys.wake())
            .arg(LOOK.as_secs());
        loop {
            let replies = link
                .exchange(&pipeline, LOOK + patience(&self.site.options))
                .await;
            match replies.as_deref() {
                Ok([Value::Nil]) => {}
                Ok([Value::ServerError(_)]) | Err(_) => {
                    tokio::time::sleep(link.pause().await.max(Duration::from_millis(50))).await;
                }
                Ok(_) => return,
            }
        }
    }
}
