//! The arrivals of a partition, as the framework polls them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use longshore_core::{Delivery, Error, ErrorKind, Part, Receipt, Result, Source, Text};
use tokio_util::sync::DropGuard;

use super::Partition;
use crate::delay::Promoter;

/// The framework's end of a subscription to a partition.
pub(crate) struct PartitionSource {
    pub(crate) partition: Arc<Partition>,
    /// Delays of the partition are kept by its owner.
    pub(crate) _promoter: Promoter,
    /// The tasks run on while anybody here holds a source, even without the transport.
    pub(crate) _alive: Arc<DropGuard>,
}

impl Source for PartitionSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        self.partition.table.poll_receive(cx, max, into)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.partition.table.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.partition.table.stop();
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        if let Part::Partition { .. } = self.partition.subscription.part {
            let text = "the prefetch of a partition belongs to the queue; change it there, for every worker";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        if prefetch == 0 {
            return Err(Error::new(ErrorKind::Invalid, "a prefetch is 1 to 65535"));
        }
        self.partition.table.set_prefetch(prefetch);
        Ok(())
    }

    fn trouble(&self) -> Option<Text> {
        self.partition.table.trouble()
    }
}

impl Drop for PartitionSource {
    fn drop(&mut self) {
        self.partition.table.abandon();
    }
}
