//! Rings when the next delayed message is due.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use longshore_core::Clock;
use tokio::time::{Instant, Sleep, sleep_until};

/// One timer that is set again and again.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Rings at `due` by this clock; ready where that has passed already.
    pub(crate) fn poll(
        &mut self,
        due: Duration,
        clock: &dyn Clock,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let at = Instant::now() + due.saturating_sub(clock.monotonic());
        let timer = match &mut self.0 {
            Some(timer) => {
                timer.as_mut().reset(at);
                timer
            }
            none => none.insert(Box::pin(sleep_until(at))),
        };
        timer.as_mut().poll(cx)
    }
}
