//! Where replies to this client arrive: a stream of its own, that lives as long as it is read.
//!
//! What has been read stays on the server until the next read says that it came. So a cut connection
//! loses nothing, as long as the stream is still there afterwards; where it is not, the source ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use longshore_core::{
    Delivery, Error, ErrorKind, Limits, Part, Receipt, ReplyAddress, Result, Source, Text,
};
use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    convert,
    entry::{Entry, EntryId, int, read_reply},
    failure::{checked, is_passing, refused, unread},
    link::{Link, pauses},
    names::{reply_prefix, slot},
    reader::next_count,
    site::{Place, Site, patience},
};

/// How long the stream outlives its reader.
const LIFE: Duration = Duration::from_secs(60);
/// How long one read may wait on the server.
const BLOCK: Duration = Duration::from_millis(500);
/// Replies that wait here to be taken, at most; the others wait on the server.
const ROOM: usize = 512;
const COUNT_FIRST: usize = 16;

/// One address and what arrived there.
pub(crate) struct Inbox {
    site: Arc<Site>,
    address: String,
    state: Mutex<State>,
    /// Room was made, or it stops.
    changed: Notify,
    killed: CancellationToken,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<Delivery>,
    stopped: bool,
    ended: Option<Error>,
    trouble: Option<Text>,
    receiver: Option<Waker>,
    taken: u64,
}

/// The reader's end. Dropping it gives the address up.
pub(crate) struct InboxSource {
    pub(crate) inbox: Arc<Inbox>,
    /// As for the sources of queues.
    pub(crate) _alive: Arc<DropGuard>,
}

impl Inbox {
    /// Makes an address, and the connection that reads it.
    pub(crate) async fn open(
        site: Arc<Site>,
        killed: CancellationToken,
    ) -> Result<(Arc<Self>, Link)> {
        let options = &site.options;
        let address = format!(
            "{}{}",
            reply_prefix(&options.key_prefix),
            options.ids.text()
        );
        let place = Place::Slot(slot(address.as_bytes()));
        let link = Link::new(Arc::clone(&site), place, "replies");
        let mut make = redis::pipe();
        make.cmd("MULTI");
        // A stream is there only once something was added; nothing of it is kept.
        let add = make.cmd("XADD").arg(&address).arg("MAXLEN").arg(0);
        add.arg("*").arg("made").arg(1);
        let expire = make.cmd("PEXPIRE").arg(&address);
        expire.arg(LIFE.as_millis() as u64);
        make.cmd("EXEC");
        let replies = link.exchange(&make, options.connect_timeout).await;
        for reply in replies.map_err(unread)? {
            checked(reply)?;
        }
        let inbox = Self {
            address,
            state: Mutex::default(),
            changed: Notify::new(),
            killed,
            site,
        };
        Ok((Arc::new(inbox), link))
    }

    pub(crate) fn address(&self) -> ReplyAddress {
        ReplyAddress::checked(self.address.as_str())
    }

    /// Ends it: what has arrived can be taken, then comes this error.
    pub(crate) fn end(&self, error: Error) {
        let mut state = self.state();
        state.stopped = true;
        state.ended.get_or_insert(error);
        wake(state);
        self.changed.notify_one();
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        wake(state);
        self.changed.notify_one();
    }

    /// Reads until it stops, then takes the address away.
    pub(crate) async fn run(self: Arc<Self>, link: Link) {
        let killed = self.killed.clone();
        tokio::select! {
            biased;
            () = killed.cancelled() => {}
            () = self.read(&link) => {}
        }
        link.close();
    }

    async fn read(&self, link: &Link) {
        let mut delays = pauses();
        let mut last = EntryId { ms: 0, sequence: 0 };
        let mut most = COUNT_FIRST;
        while !self.state().stopped {
            let room = ROOM.saturating_sub(self.state().arrived.len());
            match self.read_once(link, last, room.min(most)).await {
                Ok(entries) => {
                    delays = pauses();
                    if let Some(count) = next_count(&entries, most) {
                        most = count;
                    }
                    if let Some(newest) = entries.last() {
                        last = newest.id;
                    }
                    self.arrive(entries);
                }
                Err(Broken::Passing(why)) => {
                    self.state().trouble = Some(why.into());
                    let delay = delays.next().unwrap_or(BLOCK).min(link.pause().await);
                    let _ = tokio::time::timeout(delay, self.changed.notified()).await;
                }
                Err(Broken::Final(error)) => return self.end(error),
            }
            if room == 0 {
                let _ = tokio::time::timeout(LIFE / 3, self.changed.notified()).await;
            }
        }
        let mut leave = redis::pipe();
        leave.cmd("DEL").arg(&self.address);
        // Without an answer it passes by itself.
        let _ = link.exchange(&leave, patience(&self.site.options)).await;
    }

    /// Drops what came before, keeps the address alive, and reads on. Sent again it does the same.
    async fn read_once(
        &self,
        link: &Link,
        last: EntryId,
        count: usize,
    ) -> Result<Vec<Entry>, Broken> {
        let mut pipeline = Pipeline::new();
        let expire = pipeline.cmd("PEXPIRE").arg(&self.address);
        expire.arg(LIFE.as_millis() as u64);
        let from = format!("{}-{}", last.ms, last.sequence.saturating_add(1));
        let trim = pipeline.cmd("XTRIM").arg(&self.address);
        trim.arg("MINID").arg(from);
        if count > 0 {
            let read = pipeline.cmd("XREAD").arg("COUNT").arg(count);
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&self.address).arg(last.to_string());
        }
        let limit = BLOCK + patience(&self.site.options);
        let replies = match link.exchange(&pipeline, limit).await {
            Ok(replies) => replies,
            Err(broken) => return Err(Broken::Passing(broken.into_error().to_string())),
        };
        for reply in &replies {
            match reply {
                Value::ServerError(error) if is_passing(error) => {
                    return Err(Broken::Passing(refused(error).to_string()));
                }
                Value::ServerError(error) => return Err(Broken::Final(refused(error))),
                _ => {}
            }
        }
        let mut replies = replies.into_iter();
        if replies.next().as_ref().and_then(int) == Some(0) {
            return Err(Broken::Final(Error::new(
                ErrorKind::Unavailable,
                "the address for replies is gone from the server; replies may have been lost",
            )));
        }
        Ok(replies.nth(1).map(read_reply).unwrap_or_default())
    }

    fn arrive(&self, entries: Vec<Entry>) {
        let prefix = reply_prefix(&self.site.options.key_prefix);
        let limits = Limits {
            body: Limits::HARD_BODY,
            ..Limits::default()
        };
        let mut state = self.state();
        state.trouble = None;
        for entry in entries {
            let read = convert::read_reply(&entry.fields, &limits, &prefix);
            let tag = [state.taken, 0];
            state.taken += 1;
            state.arrived.push_back(Delivery {
                envelope: read.envelope,
                receipt: Receipt { scope: 0, tag },
                part: Part::Lane(0),
                attempt: 1,
                suspect: false,
                alone: false,
                standing: read.standing,
                defect: read.defect,
            });
        }
        if !state.arrived.is_empty() {
            wake(state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a read brought nothing.
enum Broken {
    /// Said in `trouble`.
    Passing(String),
    Final(Error),
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.receiver.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Source for InboxSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let mut state = self.inbox.state();
        let count = state.arrived.len().min(max.max(1));
        if count > 0 {
            into.extend(state.arrived.drain(..count));
            drop(state);
            self.inbox.changed.notify_one();
            return Poll::Ready(Ok(count));
        }
        if let Some(error) = &state.ended {
            return Poll::Ready(Err(error.again()));
        }
        if state.stopped {
            return Poll::Ready(Ok(0));
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
        Poll::Pending
    }

    fn stop(&mut self) {
        self.inbox.stop();
    }

    fn set_prefetch(&mut self, _: u16) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "replies are not settled, so they have no prefetch",
        ))
    }

    fn trouble(&self) -> Option<Text> {
        self.inbox.state().trouble.clone()
    }
}

impl Drop for InboxSource {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}
