//! What one channel has delivered and nobody has settled yet, and how that is acknowledged.

mod suspect;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicRejectOptions},
    types::ShortString,
};
use longshore_core::{
    Delivery, Envelope, Error, ErrorKind, Receipt, Result,
    chaos::{CrashPoint, Flaw},
};
use tokio::sync::oneshot;

use self::suspect::Suspect;
use crate::convert::Arrived;

/// The unsettled deliveries of one channel. Its scope is unlike that of any other, so a receipt
/// that outlived its channel matches nothing.
pub(crate) struct Held {
    pub(crate) scope: u64,
    /// Whether this is the quarantine, to which retries return.
    pub(crate) quarantine: bool,
    pub(crate) channel: Channel,
    /// Of the quarantine, once something was delivered: where it is started, or that this process may
    /// have no such queue, and what comes back counts as started.
    pub(crate) cell: OnceLock<Option<ShortString>>,
    tags: Mutex<Tags>,
}

static SCOPES: AtomicU64 = AtomicU64::new(1);

/// The delivery tags from `first` on: the broker counts them up from 1, without gaps.
#[derive(Debug)]
struct Tags {
    live: bool,
    first: u64,
    marks: VecDeque<Mark>,
    unsettled: usize,
    suspect: Option<Suspect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Arrived, not handed out.
    Waiting,
    /// Handed out.
    Taken,
    /// Being settled.
    Busy,
    /// To be acknowledged with the next frames.
    Done,
    /// Acknowledged or rejected, on the wire.
    Gone,
}

/// How to end a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledge,
    /// Moves it whole to the queue's own dead-letter target.
    Reject,
    /// Gives it back as it is. The broker counts that as a return.
    Requeue,
}

type Written = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

pub(crate) fn stale() -> Error {
    Error::new(
        ErrorKind::Stale,
        "the lock is gone: the connection was lost, or it is settled already",
    )
}

impl Held {
    pub(crate) fn new(channel: Channel, quarantine: bool) -> Self {
        Self {
            scope: SCOPES.fetch_add(1, Ordering::Relaxed),
            quarantine,
            channel,
            cell: OnceLock::new(),
            tags: Mutex::new(Tags {
                live: true,
                first: 1,
                marks: VecDeque::new(),
                unsettled: 0,
                suspect: None,
            }),
        }
    }

    pub(crate) fn receipt(&self, tag: u64) -> Receipt {
        Receipt {
            scope: self.scope,
            tag: [tag, 0],
        }
    }

    /// Notes a delivery.
    pub(crate) fn arrived(&self, tag: u64) {
        let mut tags = self.lock();
        // A gap is a delivery to the other consumer of this channel, or one lapin has swallowed: that
        // stays unsettled until the channel ends.
        while tags.first + (tags.marks.len() as u64) <= tag {
            tags.marks.push_back(Mark::Waiting);
            tags.unsettled += 1;
        }
    }

    /// Notes that this was handed out.
    pub(crate) fn taken(&self, delivery: &Delivery) {
        let mut tags = self.lock();
        let [tag, _] = delivery.receipt.tag;
        if let Some(mark @ Mark::Waiting) = tags.mark(tag) {
            *mark = Mark::Taken;
        }
        if delivery.suspect {
            tags.suspect = Some(Suspect::new(delivery));
        }
    }

    /// Whether a suspect was handed out and is not settled.
    pub(crate) fn suspect_is_out(&self) -> bool {
        let mut tags = self.lock();
        let Some(suspect) = &tags.suspect else {
            return false;
        };
        let tag = suspect.tag();
        suspect.is_starting() || matches!(tags.mark(tag), Some(Mark::Taken | Mark::Busy))
    }

    /// Begins to start a suspect: nobody can settle it before that has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`].
    pub(crate) fn begin_start(
        &self,
        tag: u64,
        attempt: u32,
    ) -> Result<(Envelope, oneshot::Receiver<u64>)> {
        self.begin(tag)?;
        let mut tags = self.lock();
        let suspect = tags.suspect.as_mut().filter(|suspect| suspect.tag() == tag);
        Ok(suspect.ok_or_else(stale)?.begin(attempt))
    }

    /// Whether a start waits for this copy.
    pub(crate) fn is_awaited(&self, tag: u64, arrived: &Arrived) -> bool {
        let mut tags = self.lock();
        let suspect = tags.suspect.as_mut();
        suspect.is_some_and(|suspect| suspect.takes(tag, arrived))
    }

    /// Ends a start: what was handed out is held under the tag of its copy.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] where there is none, or it is lost.
    pub(crate) fn end_start(&self, tag: u64, copy: Option<u64>) -> Result<()> {
        let mut tags = self.lock();
        if let Some(suspect) = tags.suspect.as_mut().filter(|suspect| suspect.tag() == tag) {
            suspect.started(copy);
        }
        match copy.and_then(|copy| tags.mark(copy)) {
            Some(mark @ Mark::Waiting) => {
                *mark = Mark::Taken;
                Ok(())
            }
            _ => Err(stale()),
        }
    }

    /// The tag the next delivery will have.
    pub(crate) fn next(&self) -> u64 {
        let tags = self.lock();
        tags.first + tags.marks.len() as u64
    }

    /// Whether everything before this tag is settled.
    pub(crate) fn drained(&self, before: u64) -> bool {
        self.lock().first >= before
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.lock().unsettled
    }

    pub(crate) fn is_live(&self) -> bool {
        self.lock().live && self.channel.status().connected()
    }

    /// Begins a settlement: nobody else can settle this delivery now.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`].
    pub(crate) fn begin(&self, tag: u64) -> Result<()> {
        let mut tags = self.lock();
        if !tags.live || !self.channel.status().connected() {
            return Err(stale());
        }
        match tags.mark(tag) {
            Some(mark @ (Mark::Taken | Mark::Waiting)) => {
                *mark = Mark::Busy;
                Ok(())
            }
            _ => Err(stale()),
        }
    }

    /// Whether this delivery was handed out and nobody is settling it.
    pub(crate) fn holds(&self, tag: u64) -> bool {
        let mut tags = self.lock();
        tags.live && matches!(tags.mark(tag), Some(Mark::Taken))
    }

    /// Gives a settlement up that could not be done.
    pub(crate) fn abandon(&self, tag: u64) {
        let mut tags = self.lock();
        if let Some(mark @ Mark::Busy) = tags.mark(tag) {
            *mark = Mark::Taken;
        }
    }

    /// Ends deliveries that were begun: the frames are queued before this returns, as few as
    /// possible. The answer is when they were written.
    pub(crate) fn end(&self, tags: &[u64], how: End) -> impl Future<Output = Result<()>> + use<> {
        let mut written = Vec::new();
        let mut live = false;
        {
            let mut held = self.lock();
            if held.live && self.channel.status().connected() {
                live = true;
                match how {
                    End::Acknowledge => self.acknowledge(&mut held, tags, &mut written),
                    End::Reject => self.reject(&mut held, tags, false, &mut written),
                    End::Requeue => self.reject(&mut held, tags, true, &mut written),
                }
            }
        }
        async move {
            if !live {
                return Err(stale());
            }
            for frame in written {
                frame.await.map_err(|error| {
                    let told = crate::error::told("settling", &error);
                    Error::new(ErrorKind::Unknown, told.to_string())
                })?;
            }
            CrashPoint::SettleSent.reached();
            Ok(())
        }
    }

    /// One `multiple` for what is settled from the front on, single ones for the rest. The tag of a
    /// `multiple` must itself be unacknowledged, or the broker closes the channel.
    fn acknowledge(&self, held: &mut Tags, tags: &[u64], written: &mut Vec<Written>) {
        for &tag in tags {
            if let Some(mark @ Mark::Busy) = held.mark(tag) {
                *mark = Mark::Done;
                held.unsettled -= 1;
            }
        }
        let first = held.first;
        let front = held.marks.iter().zip(first..);
        let (mut last, mut count) = (None, 0_usize);
        for (mark, tag) in front {
            match mark {
                Mark::Done => {
                    last = Some(tag);
                    count += 1;
                }
                Mark::Gone => {}
                _ => break,
            }
        }
        if let Some(last) = last {
            written.extend(self.frame(last, count > 1));
        }
        for (mark, tag) in held.marks.iter_mut().zip(first..) {
            if *mark == Mark::Done {
                if last.is_none_or(|last| tag > last) {
                    written.extend(self.frame(tag, false));
                }
                *mark = Mark::Gone;
            }
        }
        held.shorten();
    }

    fn reject(&self, held: &mut Tags, tags: &[u64], requeue: bool, written: &mut Vec<Written>) {
        for &tag in tags {
            let tag = held.held_as(tag);
            let Some(mark @ Mark::Busy) = held.mark(tag) else {
                continue;
            };
            *mark = Mark::Gone;
            held.unsettled -= 1;
            let channel = self.channel.clone();
            let options = BasicRejectOptions { requeue };
            written.extend(queued(
                async move { channel.basic_reject(tag, options).await },
            ));
        }
        held.shorten();
    }

    fn frame(&self, tag: u64, multiple: bool) -> Option<Written> {
        let channel = self.channel.clone();
        let multiple = multiple || Flaw::MultipleAcknowledge.on();
        let options = BasicAckOptions { multiple };
        queued(async move { channel.basic_ack(tag, options).await })
    }

    /// Ends the channel for good and tells which deliveries were handed out and are lost.
    pub(crate) fn lose(&self) -> Vec<Receipt> {
        let mut tags = self.lock();
        tags.live = false;
        let first = tags.first;
        tags.unsettled = 0;
        let suspect = tags.suspect.take();
        let handed_out = |tag| match &suspect {
            Some(suspect) if suspect.held_as() == tag => suspect.tag(),
            _ => tag,
        };
        let marks = std::mem::take(&mut tags.marks);
        let lost = marks.into_iter().zip(first..);
        lost.filter(|(mark, _)| matches!(mark, Mark::Taken | Mark::Busy))
            .map(|(_, tag)| self.receipt(handed_out(tag)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Tags> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        hang_up(&self.channel);
    }
}

/// Closes the channel in so many words. lapin closes a dropped channel only once its consumers are
/// cancelled, and nobody cancels one whose making was given up half way: it would go on taking.
pub(crate) fn hang_up(channel: &Channel) {
    if channel.status().connected() {
        let channel = channel.clone();
        let _ = queued(async move { channel.close(200, "done".into()).await });
    }
}

impl Tags {
    fn held_as(&self, tag: u64) -> u64 {
        match &self.suspect {
            Some(suspect) if suspect.tag() == tag => suspect.held_as(),
            _ => tag,
        }
    }

    fn mark(&mut self, tag: u64) -> Option<&mut Mark> {
        let tag = self.held_as(tag);
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        self.marks.get_mut(at)
    }

    fn shorten(&mut self) {
        while self.marks.front() == Some(&Mark::Gone) {
            self.marks.pop_front();
            self.first += 1;
        }
    }
}

/// lapin queues the frame in the first poll; what remains is waiting for the socket.
fn queued(frame: impl Future<Output = lapin::Result<()>> + Send + 'static) -> Option<Written> {
    let mut frame: Written = Box::pin(frame);
    let mut context = Context::from_waker(Waker::noop());
    match frame.as_mut().poll(&mut context) {
        // Kept for its answer: an error must not be taken for a written frame.
        std::task::Poll::Ready(Err(error)) => Some(Box::pin(async move { Err(error) })),
        std::task::Poll::Ready(Ok(())) => None,
        std::task::Poll::Pending => Some(frame),
    }
}
