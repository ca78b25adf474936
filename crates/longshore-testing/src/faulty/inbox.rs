//! An inbox for replies that is lost with the connection.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use longshore_core::{Delivery, Receipt, Result, Source, Text};

use super::faults::{Shared, unknown};

/// An inbox for replies.
pub(super) struct Inbox {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    source: Option<Box<dyn Source>>,
    told: bool,
    waker: Option<Waker>,
}

/// Arrivals at an inbox.
pub(super) struct InboxSource(Arc<Inbox>);

impl Inbox {
    pub(super) fn open(shared: Arc<Shared>, source: Box<dyn Source>) -> InboxSource {
        let state = State {
            source: Some(source),
            told: false,
            waker: None,
        };
        let inbox = Arc::new(Self {
            shared,
            state: Mutex::new(state),
        });
        inbox.shared.connection().add_inbox(&inbox);
        InboxSource(inbox)
    }

    /// What was in it is lost, and its address with it.
    pub(super) fn cut(&self) {
        let source = self.state().source.take();
        drop(source);
    }

    pub(super) fn tell(&self) {
        let mut state = self.state();
        state.told = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for InboxSource {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let mut state = self.0.state();
        state.waker = Some(cx.waker().clone());
        if self.0.shared.is_dead() {
            return Poll::Pending;
        }
        let told = state.told;
        match &mut state.source {
            Some(source) => source.poll_receive(cx, max, into),
            None if told => Poll::Ready(Err(unknown("the connection is lost"))),
            None => Poll::Pending,
        }
    }

    fn poll_lost(&mut self, _: &mut Context<'_>, _: &mut Vec<Receipt>) -> Poll<()> {
        Poll::Pending
    }

    fn stop(&mut self) {
        if let Some(source) = &mut self.0.state().source {
            source.stop();
        }
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        match &mut self.0.state().source {
            Some(source) => source.set_prefetch(prefetch),
            None => Ok(()),
        }
    }

    fn trouble(&self) -> Option<Text> {
        self.0.state().source.as_ref()?.trouble()
    }
}

impl Drop for InboxSource {
    fn drop(&mut self) {
        self.0.cut();
    }
}
