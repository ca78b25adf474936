//! What a feed consumes with.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lapin::{
    Consumer,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use longshore_core::{Declare, ErrorKind, Result, chaos::Flaw};

use super::Feed;
use crate::{
    convert::{counter, short},
    held::Held,
    intake::Slot,
    link::live,
    objects::{answered, declare_queue},
    session::{SETUP, Session},
    topology::{self, declare},
};

static CONSUMERS: AtomicU64 = AtomicU64::new(1);

/// What a cell may deliver: the copy that starts, beside what an earlier connection left.
const CELL_PREFETCH: u16 = 8;

/// A channel that delivers.
pub(super) struct Open {
    pub(super) session: Arc<Session>,
    pub(super) held: Arc<Held>,
    /// The header in which this broker counts returns.
    pub(super) counter: &'static str,
    pub(super) consumer: Option<Consumer>,
    /// Of suspects that run here, once there was one.
    pub(super) cell: Option<Consumer>,
    /// What was wanted when the consumer was made.
    pub(super) wanted: u16,
    /// The prefetch it got: less by what older consumers of this channel still held.
    pub(super) prefetch: u16,
    /// Tags before this one belong to older consumers.
    pub(super) since: u64,
    pub(super) stopping: bool,
}

impl Feed {
    pub(super) async fn open(&mut self) -> Result<Open> {
        let session = live(&mut self.link, SETUP).await?;
        if self.slot == Slot::Lane && self.declared != session.epoch {
            declare(&session, &self.plan.topology, self.plan.declare).await?;
            self.declared = session.epoch;
        }
        let prefetch = match self.slot {
            Slot::Lane => self.intent.borrow().prefetch,
            Slot::Quarantine => 1,
        };
        let channel = session.channel().await?;
        session.watch.limit(channel.id(), self.plan.limits);
        let held = Arc::new(Held::new(channel, self.slot == Slot::Quarantine));
        let consumer = match self.consume(&held, self.queue(), prefetch).await {
            Ok(consumer) => consumer,
            Err(error) => {
                if error.kind() == ErrorKind::NoSuchQueue {
                    declare(&session, &self.plan.topology, self.plan.declare).await?;
                }
                return Err(error);
            }
        };
        Ok(Open {
            counter: counter(&session.server()),
            session,
            held,
            consumer: Some(consumer),
            cell: None,
            wanted: prefetch,
            prefetch,
            since: 1,
            stopping: false,
        })
    }

    pub(super) async fn consume(
        &self,
        held: &Held,
        queue: &str,
        prefetch: u16,
    ) -> Result<Consumer> {
        let doing = format!("consuming from \"{queue}\"");
        let prefetch = prefetch * u16::from(!Flaw::UnboundedPrefetch.on());
        let qos = held
            .channel
            .basic_qos(prefetch, BasicQosOptions { global: false });
        answered(&doing, queue, qos).await?;
        // A new tag each time: the old consumer's last deliveries must not be taken for its.
        let tag = CONSUMERS.fetch_add(1, Ordering::Relaxed);
        let tag = ShortString::from(format!("longshore-{tag}"));
        let consumer = held.channel.basic_consume(
            short("queue name", queue)?,
            tag,
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        answered(&doing, queue, consumer).await
    }

    /// Makes the cell of a quarantine before anything of that is handed out. Whether the channel goes on.
    pub(super) async fn has_cell(&self, open: &mut Open) -> bool {
        if self.slot == Slot::Lane || open.held.cell.get().is_some() {
            return true;
        }
        let (cell, arguments) = (&self.plan.cell, topology::cell(&self.plan.quarantine));
        let made = declare_queue(&open.session, cell, arguments, Declare::Create).await;
        let consumed = match made {
            Ok(_) => self.consume(&open.held, cell, CELL_PREFETCH).await,
            Err(error) => Err(error),
        };
        let name = match consumed {
            Ok(consumer) => {
                open.cell = Some(consumer);
                short("queue name", cell).ok()
            }
            // Tried again and again, a refusal would cost a channel each time.
            Err(error) if error.kind() != ErrorKind::Unavailable && open.held.is_live() => {
                let queue = self.queue();
                tracing::warn!(queue, %error, "each return of a suspect counts as a start");
                None
            }
            Err(error) => {
                let queue = self.queue();
                tracing::warn!(queue, %error, "a suspect cannot be started yet");
                return false;
            }
        };
        open.held.cell.get_or_init(|| name);
        true
    }
}
