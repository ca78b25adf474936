//! The state of a session, as a handler sees it.

use std::{
    any::type_name,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use longshore_core::{Error, ErrorKind, Result, Text};
use serde::{Serialize, de::DeserializeOwned};

use crate::Context;

/// The largest state of a session, encoded.
const MOST_BYTES: usize = 256 * 1024;

/// The right to the sessions of one partition, for as long as it is owned.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// Of the partition.
    pub(crate) scope: Text,
    pub(crate) token: u64,
    /// Somebody has asked for a state since the worker was started.
    pub(crate) wanted: Arc<AtomicBool>,
}

/// What a start knows of its session.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) tenure: Arc<Tenure>,
    /// The state, where it was loaded before the start.
    pub(crate) loaded: Option<Option<Bytes>>,
}

/// The session of a message: all messages of a queue with the same key, handled one at a time.
///
/// Its state is a value that is kept from message to message, written if the handler succeeds and
/// together with the completion of its message. A message that is tried again sees the state as it
/// was before its first try. Where the transport cannot write state and completion in one step
/// (RabbitMQ), the state is written first.
///
/// While the store does not answer, [`state`](Self::state) waits for it, within the time limit.
///
/// ```
/// # use longshore::{Context, HandlerError, Message};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Deserialize)] struct Deposit { cents: u64 }
/// #[derive(Default, Serialize, Deserialize)]
/// struct Balance {
///     cents: u64,
/// }
///
/// async fn deposit(deposit: Deposit, cx: Context) -> Result<(), HandlerError> {
///     let session = cx.session();
///     let mut balance: Balance = session.state().await?.unwrap_or_default();
///     balance.cents += deposit.cents;
///     session.set_state(&balance)?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Session {
    cx: Context,
}

impl Session {
    pub(crate) fn of(cx: Context) -> Self {
        Self { cx }
    }

    /// The key all its messages carry; empty in a queue without sessions.
    pub fn key(&self) -> &str {
        match self.cx.place() {
            Some(_) => self.cx.key().unwrap_or_default(),
            None => "",
        }
    }

    /// The fencing token: larger than that of every earlier owner of this session. Hand it to
    /// whatever must refuse a worker that lost its session and does not know yet. 0 in a queue
    /// without sessions.
    pub fn token(&self) -> u64 {
        self.cx.place().map_or(0, |place| place.tenure.token)
    }

    /// The state: what this handler has set, else what an earlier message left; `None` where there is
    /// none.
    ///
    /// # Errors
    /// `Unsupported` in a queue without sessions, `Invalid` where what is there is no `T`.
    pub async fn state<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let place = self.place()?;
        let state = match (self.cx.pending_state(), &place.loaded) {
            (Some(set), _) => set,
            (None, Some(loaded)) => loaded.clone(),
            (None, None) => self.load(place).await?,
        };
        let Some(state) = state else {
            return Ok(None);
        };
        serde_json::from_slice(&state).map(Some).map_err(|error| {
            // What serde says repeats pieces of the state.
            let place = format!("line {}, column {}", error.line(), error.column());
            let text = format!(
                "the state of the session is no {} ({place})",
                type_name::<T>()
            );
            Error::new(ErrorKind::Invalid, text)
        })
    }

    /// Sets the state, once this handler has succeeded.
    ///
    /// # Errors
    /// `Unsupported` in a queue without sessions, `Invalid` above 256 KiB of JSON or for what cannot
    /// be written as JSON, `Closed` once the handler has ended.
    pub fn set_state<T: Serialize + ?Sized>(&self, state: &T) -> Result<()> {
        self.place()?;
        let invalid = |text| Error::new(ErrorKind::Invalid, text);
        let state = serde_json::to_vec(state)
            .map_err(|_| invalid(format!("{} cannot be written as JSON", type_name::<T>())))?;
        if state.len() > MOST_BYTES {
            let bytes = state.len();
            let text =
                format!("the state of a session has at most 256 KiB; this one has {bytes} bytes");
            return Err(invalid(text));
        }
        self.cx.keep_state(Some(state.into()))
    }

    /// Removes the state, once this handler has succeeded.
    ///
    /// # Errors
    /// As [`set_state`](Self::set_state).
    pub fn clear_state(&self) -> Result<()> {
        self.place()?;
        self.cx.keep_state(None)
    }

    async fn load(&self, place: &Place) -> Result<Option<Bytes>> {
        let tenure = &place.tenure;
        tenure.wanted.store(true, Ordering::Relaxed);
        let books = self.cx.client().books();
        let key = self.cx.envelope().key.clone().unwrap_or_default();
        let message = self.cx.state_message();
        let session = books
            .insist(|| books.store.load(&tenure.scope, &key, &message))
            .await?;
        Ok(session.state)
    }

    fn place(&self) -> Result<&Place> {
        self.cx.place().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "this queue has no sessions; declare it with `Queue::sessions`",
            )
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}
