//! Looks whether the queue of a silent consumer is still the one it consumes.
//!
//! RabbitMQ tells a consumer when its queue is deleted, but not always: seen on 3.10, where another
//! client declares the queue again 20 ms later, the consumer is told nothing, counts as one of the
//! new queue and gets no message of it.

use std::{future::pending, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use lapin::types::FieldTable;
use longshore_core::{Declare, ErrorKind};

use crate::{held::Held, objects::declare_queue, session::Session};

/// After how many looks without a delivery the broker is asked.
const QUIET: u32 = 3;

/// Of one consumer.
#[derive(Default)]
pub(crate) struct Pulse {
    quiet: u32,
    asking: Option<BoxFuture<'static, Found>>,
    /// The queue had messages for a consumer that held none. Once is no proof: they may have been
    /// on their way.
    starving: bool,
}

/// What the broker says of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is missing, or nobody consumes it.
    Gone,
    /// It has messages to deliver.
    Full,
    Empty,
}

impl Pulse {
    /// Something was delivered.
    pub(crate) fn beat(&mut self) {
        *self = Self::default();
    }

    /// Time has passed.
    pub(crate) fn look(&mut self, session: &Arc<Session>, queue: &str) {
        self.quiet += 1;
        if self.quiet >= QUIET && self.asking.is_none() {
            self.asking = Some(ask(session.clone(), queue.to_owned()).boxed());
        }
    }

    /// Waits until the consumer turns out to be cut off. Cancelling loses nothing.
    pub(crate) async fn stopped(&mut self, held: &Held) {
        loop {
            let found = match self.asking.as_mut() {
                Some(asking) => asking.await,
                None => pending().await,
            };
            let starving = found == Found::Full && held.unsettled() == 0;
            if found == Found::Gone || starving && self.starving {
                return;
            }
            let quiet = if starving { QUIET } else { 0 };
            *self = Self {
                quiet,
                starving,
                asking: None,
            };
        }
    }
}

async fn ask(session: Arc<Session>, queue: String) -> Found {
    let none = FieldTable::default();
    match declare_queue(&session, &queue, none, Declare::Verify).await {
        Ok(figures) if figures.consumers == 0 => Found::Gone,
        Ok(figures) if figures.ready > 0 => Found::Full,
        Err(error) if error.kind() == ErrorKind::NoSuchQueue => Found::Gone,
        // Who cannot be asked is no reason to give up what may work.
        Ok(_) | Err(_) => Found::Empty,
    }
}
