//! The arrivals of one part, as the framework polls them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use longshore_core::{Delivery, Error, ErrorKind, Receipt, Result, Source, Text};

use tokio_util::sync::DropGuard;

use crate::{delay::Promoter, lane::Lane};

/// The framework's end of a subscription; the work is done by tasks.
pub(crate) struct RedisSource {
    pub(crate) lane: Arc<Lane>,
    /// Delays of the queue are kept while anybody here consumes it.
    pub(crate) _promoter: Arc<Promoter>,
    /// The tasks run on while anybody here holds a source, even without the transport.
    pub(crate) _alive: Arc<DropGuard>,
}

impl Source for RedisSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        self.lane.table.poll_receive(cx, max, into)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.lane.table.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.lane.table.stop();
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        if prefetch == 0 {
            return Err(Error::new(ErrorKind::Invalid, "a prefetch is 1 to 65535"));
        }
        self.lane.table.set_prefetch(prefetch);
        Ok(())
    }

    fn trouble(&self) -> Option<Text> {
        self.lane.table.trouble()
    }
}

impl Drop for RedisSource {
    fn drop(&mut self) {
        self.lane.table.abandon();
    }
}
