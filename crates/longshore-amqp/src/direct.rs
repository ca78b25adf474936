//! Replies to clients that wait for them without a queue.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use longshore_core::{Limits, Result, chaos::CrashPoint};

use crate::{
    error::closed,
    link::Link,
    publisher::{Letter, Publisher},
    session::Dialer,
};

/// A connection of its own, made for the first such reply. RabbitMQ 3 closes the connection of whoever
/// publishes to an address whose node has left the cluster, and anybody can forge one, so these
/// replies can fail each other but nothing else.
pub(crate) struct DirectReplies {
    dialer: Dialer,
    patience: Duration,
    state: Mutex<State>,
}

enum State {
    Unused,
    Used(Arc<(Link, Publisher)>),
    Closed,
}

impl DirectReplies {
    pub(crate) fn new(dialer: Dialer, patience: Duration) -> Self {
        let state = Mutex::new(State::Unused);
        Self {
            dialer,
            patience,
            state,
        }
    }

    /// See [`Publisher::publish`].
    pub(crate) async fn publish(&self, letters: Vec<Letter>) -> Vec<Result<()>> {
        if letters.is_empty() {
            return Vec::new();
        }
        let used = {
            let mut state = self.lock();
            if let State::Unused = *state {
                let link = Link::start(self.dialer.clone(), "reply", Limits::default());
                let publisher = Publisher::start(&link, self.patience, CrashPoint::PublishSent);
                *state = State::Used(Arc::new((link, publisher)));
            }
            match &*state {
                State::Used(used) => Some(used.clone()),
                _ => None,
            }
        };
        match used {
            Some(used) => used.1.publish(letters).await,
            None => letters.iter().map(|_| Err(closed())).collect(),
        }
    }

    pub(crate) async fn close(&self, within: Duration) {
        let state = std::mem::replace(&mut *self.lock(), State::Closed);
        if let State::Used(used) = state {
            used.0.close(within).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
