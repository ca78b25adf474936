//! Arrivals that come late or are lost.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use longshore_core::{Delivery, Receipt, Result, Source, Standing, Text};

use super::line::Line;

/// Arrivals of one part: read ahead, and lost with the connection.
pub(super) struct FaultySource(pub(super) Arc<Line>);

impl Source for FaultySource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        self.0.poll_receive(cx, max, into)
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.0.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        self.0.set_prefetch(prefetch)
    }

    fn trouble(&self) -> Option<Text> {
        self.0.trouble()
    }
}

impl Drop for FaultySource {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Arrivals of a broker that keeps no marks.
pub(super) struct Unmarked(pub(super) FaultySource);

impl Source for Unmarked {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let from = into.len();
        let polled = self.0.poll_receive(cx, max, into);
        for delivery in into.iter_mut().skip(from) {
            if delivery.standing == Standing::Held {
                delivery.standing = Standing::Unknown;
            }
        }
        polled
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.0.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.0.stop();
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        self.0.set_prefetch(prefetch)
    }

    fn trouble(&self) -> Option<Text> {
        self.0.trouble()
    }
}
