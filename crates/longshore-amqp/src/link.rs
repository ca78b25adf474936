//! A connection that is always being kept up.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use longshore_core::{Error, ErrorKind, Limits, Result, Text};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::{
    error::closed,
    session::{Dialer, Session},
};

/// A connection under supervision: made, watched, and made again for as long as the link lives.
///
/// A transport has one to publish and one to consume, because a connection the broker has blocked
/// writes no acknowledgements either.
pub(crate) struct Link {
    state: watch::Receiver<State>,
    closing: watch::Sender<Option<Duration>>,
    patience: Duration,
    task: AbortHandle,
}

/// What a link can offer just now.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Being connected; why the last try failed.
    Down(Option<(ErrorKind, Text)>),
    /// Live, as far as anybody knows.
    Up(Arc<Session>),
    /// Closed by this client.
    Closed,
}

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a good one: the next tries begin without patience.
const GOOD: Duration = Duration::from_secs(5);

impl Link {
    /// Starts to connect, on the current tokio runtime.
    pub(crate) fn start(dialer: Dialer, duty: &'static str, limits: Limits) -> Self {
        let (state, watched) = watch::channel(State::Down(None));
        let (closing, asked) = watch::channel(None);
        let patience = dialer.patience;
        let task = tokio::spawn(supervise(dialer, duty, limits, state, asked));
        Self {
            state: watched,
            closing,
            patience,
            task: task.abort_handle(),
        }
    }

    /// Follows what the link can offer.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The live session, now or within the connection time-out.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with the reason, [`ErrorKind::Denied`] as soon as the broker
    /// refuses, [`ErrorKind::Closed`].
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        live(&mut self.watch(), self.patience).await
    }

    /// Ends the connection politely, within this time.
    pub(crate) async fn close(&self, within: Duration) {
        self.closing.send_replace(Some(within));
        let mut state = self.watch();
        let closed = state.wait_for(|state| matches!(state, State::Closed));
        let _ = timeout(within, closed).await;
        self.task.abort();
    }
}

/// See [`Link::session`].
pub(crate) async fn live(
    state: &mut watch::Receiver<State>,
    within: Duration,
) -> Result<Arc<Session>> {
    let decided = state.wait_for(|state| match state {
        State::Up(session) => session.is_live(),
        State::Down(Some((ErrorKind::Denied, _))) | State::Closed => true,
        State::Down(_) => false,
    });
    let decided = match timeout(within, decided).await {
        Ok(Ok(decided)) => Some(decided.clone()),
        Ok(Err(_)) => Some(State::Closed),
        Err(_) => None,
    };
    let decided = decided.unwrap_or_else(|| state.borrow().clone());
    let why = match decided {
        State::Up(session) if session.is_live() => return Ok(session),
        State::Up(_) => None,
        State::Down(why) => why,
        State::Closed => return Err(closed()),
    };
    Err(match why {
        Some((kind @ ErrorKind::Denied, text)) => Error::new(kind, text),
        Some((_, text)) => Error::new(ErrorKind::Unavailable, text),
        None => Error::new(ErrorKind::Unavailable, "the broker cannot be reached"),
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn supervise(
    dialer: Dialer,
    duty: &'static str,
    limits: Limits,
    state: watch::Sender<State>,
    mut closing: watch::Receiver<Option<Duration>>,
) {
    let mut turn = 0;
    let mut waits = patience();
    loop {
        tokio::select! {
            biased;
            Ok(_) = closing.wait_for(Option::is_some) => break,
            () = attempt(&dialer, duty, limits, &state, &mut turn) => {}
        }
        let up = match &*state.borrow() {
            State::Up(session) => Some(session.clone()),
            _ => None,
        };
        if let Some(session) = up {
            let since = Instant::now();
            let server = session.server();
            tracing::info!(%server, duty, address = %dialer.address, "connected");
            let asked = tokio::select! {
                biased;
                Ok(within) = closing.wait_for(Option::is_some) => *within,
                () = session.until_lost() => None,
            };
            if let Some(within) = asked {
                session.close(within).await;
                break;
            }
            tracing::warn!(duty, address = %dialer.address, "the connection was lost");
            state.send_replace(State::Down(None));
            if since.elapsed() >= GOOD {
                waits = patience();
            }
        }
        let wait = waits.next().unwrap_or(LONGEST);
        tokio::select! {
            biased;
            Ok(_) = closing.wait_for(Option::is_some) => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    state.send_replace(State::Closed);
}

/// One try, at the host whose turn it is.
async fn attempt(
    dialer: &Dialer,
    duty: &'static str,
    limits: Limits,
    state: &watch::Sender<State>,
    turn: &mut usize,
) {
    let hosts = &dialer.address.hosts;
    let Some(host) = hosts.get(*turn % hosts.len().max(1)) else {
        return;
    };
    *turn = turn.wrapping_add(1);
    match dialer.dial(host, duty, limits, None).await {
        Ok(session) => {
            state.send_replace(State::Up(Arc::new(session)));
        }
        Err(error) => {
            tracing::debug!(duty, %error, "cannot connect");
            let why = (error.kind(), Text::from(error.to_string()));
            state.send_replace(State::Down(Some(why)));
        }
    }
}

fn patience() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::new()
        .with_min_delay(SHORTEST)
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}
