//! Arrivals of one owned queue, in the order they were published, and their settlement.
//!
//! Nothing is requeued while the channel is open: what is not settled keeps its place and returns with
//! the channel. So the plain queue of a queue with sessions is consumed alike, by its forwarder.

mod feed;
mod settler;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use lapin::{
    Consumer,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use longshore_core::{Delivery, Error, ErrorKind, Receipt, Result, Source, Text};
use tokio::task::AbortHandle;

use self::feed::Feed;
pub(crate) use self::settler::PartitionSettler;
use crate::{
    convert::short,
    estate::Estate,
    held::{Held, hang_up, stale},
    intake::{Intake, Slot},
    objects::answered,
    plan::Plan,
    tenure::Tenure,
};

/// The source of one ownership. It ends with it.
pub(crate) struct PartitionSource {
    intake: Arc<Intake>,
    tenure: Arc<Tenure>,
    held: Arc<Held>,
    wish: Arc<Wish>,
    feed: AbortHandle,
}

/// What the owner of a source wants no more.
#[derive(Default)]
struct Wish {
    /// To be handed what arrives from now on.
    stopped: AtomicBool,
    /// The channel.
    dropped: AtomicBool,
}

/// More would not fit into a marker.
const MOST: u16 = 256;

impl PartitionSource {
    /// Begins to consume, on the connection of the lock.
    ///
    /// # Errors
    /// [`ErrorKind::Stale`] where the ownership is lost, and whatever stands in the way: nothing is
    /// tried again.
    pub(crate) async fn start(
        estate: &Estate,
        plan: &Arc<Plan>,
        tenure: &Arc<Tenure>,
    ) -> Result<(Self, Arc<Intake>)> {
        let prefetch = plan.topology.partition_prefetch;
        check_prefetch(prefetch)?;
        let queue = &plan.lane;
        estate.fence(queue, tenure.ownership).await?;
        if !tenure.until_idle().await? {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("somebody else consumes \"{queue}\" without owning it"),
            ));
        }
        let session = &tenure.session;
        let channel = session.channel().await?;
        session.watch.limit(channel.id(), plan.limits);
        let held = Arc::new(Held::new(channel, false));
        tenure.consume_on(held.channel.clone())?;
        if let Some(book) = &tenure.book {
            book.ledger().open(prefetch.into());
        }
        let consumer = consume(&held, queue, prefetch).await?;
        let intake = Arc::new(Intake::default());
        intake.drained(Slot::Quarantine);
        intake.open(Slot::Lane, held.clone());
        let wish = Arc::new(Wish::default());
        let feed = Feed {
            plan: plan.clone(),
            tenure: tenure.clone(),
            intake: intake.clone(),
            held: held.clone(),
            wish: wish.clone(),
        };
        let source = Self {
            intake: intake.clone(),
            tenure: tenure.clone(),
            held,
            wish,
            feed: tokio::spawn(feed.run(consumer)).abort_handle(),
        };
        Ok((source, intake))
    }
}

async fn consume(held: &Held, queue: &str, prefetch: u16) -> Result<Consumer> {
    let doing = format!("consuming from \"{queue}\"");
    let qos = held
        .channel
        .basic_qos(prefetch, BasicQosOptions { global: false });
    answered(&doing, queue, qos).await?;
    let consumer = held.channel.basic_consume(
        short("queue name", queue)?,
        ShortString::from(format!("longshore-{}", held.scope)),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    answered(&doing, queue, consumer).await
}

fn check_prefetch(prefetch: u16) -> Result<()> {
    match prefetch {
        1..=MOST => Ok(()),
        other => Err(Error::new(
            ErrorKind::Invalid,
            format!("the prefetch of a partition is 1 to {MOST}, not {other}"),
        )),
    }
}

impl Source for PartitionSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let before = into.len();
        let polled = self.intake.poll_take(cx, max, into);
        if let Some(book) = &self.tenure.book {
            let mut ledger = book.ledger();
            for delivery in into.iter().skip(before) {
                let [tag, _] = delivery.receipt.tag;
                ledger.take(tag);
            }
        }
        polled.map(Ok)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        let mut lost = Vec::new();
        loop {
            if self.intake.poll_lost(cx, &mut lost).is_pending() {
                return Poll::Pending;
            }
            // What was given back is in nobody's hands here.
            if let Some(book) = &self.tenure.book {
                let ledger = book.ledger();
                lost.retain(|receipt| !ledger.is_kept(receipt.tag[0]));
            }
            if !lost.is_empty() {
                into.append(&mut lost);
                return Poll::Ready(());
            }
        }
    }

    /// The consumer goes on: what it takes from now on is the next owner's. Cancelling it would be
    /// one more thing that can lie between a queue and its order.
    fn stop(&mut self) {
        self.wish.stopped.store(true, Ordering::Release);
        self.intake.drained(Slot::Lane);
    }

    fn set_prefetch(&mut self, _: u16) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the prefetch of a partition belongs to its queue: order survives a crash only while \
             every owner takes as many as the one before",
        ))
    }

    fn trouble(&self) -> Option<Text> {
        let lost = || stale().to_string().into();
        self.tenure.is_over().then(lost)
    }
}

/// The channel closes before its consumer is cancelled; what it held returns to its place.
impl Drop for PartitionSource {
    fn drop(&mut self) {
        self.wish.dropped.store(true, Ordering::Release);
        hang_up(&self.held.channel);
        self.feed.abort();
        self.intake.close_all();
    }
}
