//! Asking a question and waiting for its answer.

use std::{fmt, future::IntoFuture, marker::PhantomData, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use longshore_core::{Error, Text};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Client, Draft, Fault, Message, Queue, Replies};

/// A message that is answered.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct GetQuote {
///     symbol: String,
/// }
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Quote {
///     price: u64,
/// }
///
/// impl longshore::Message for GetQuote {
///     const TYPE: &'static str = "quote.get";
/// }
///
/// impl longshore::Request for GetQuote {
///     type Reply = Quote;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a request",
    label = "nothing says what its reply is",
    note = "say it: `impl longshore::Request for {Self} {{ type Reply = …; }}`"
)]
pub trait Request: Message {
    /// What it is answered with. Where there is more than one reply (progress, then the result),
    /// an enum of both.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// What the handler of a [`Request`] answers with.
///
/// The reply is confirmed by the broker before the request is completed. It goes to the address the
/// request carries; a message that carries none is completed without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<T>(pub T);

/// Why a request was not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was not sent, or with `Unknown` may have been.
    NotSent(Error),
    /// The service answered with a fault, or set the request aside.
    Fault(Fault),
    /// No reply came in time. The request may still be handled; a late reply is dropped.
    TimedOut(Duration),
    /// The connection on which the reply was awaited is gone, and the reply may be with it. Ask
    /// again with the same id: inside a dedup window the same reply comes without a second effect.
    ConnectionLost,
    /// A reply came that is not what the request says. Holds where it differs, not what it is.
    Undecodable(String),
    /// Replies came faster than they were taken: more than 1,024 waited.
    Overrun,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(_) => f.write_str("the request was not sent"),
            Self::Fault(fault) => fault.fmt(f),
            Self::TimedOut(after) => write!(f, "no reply came within {after:?}"),
            Self::ConnectionLost => f.write_str(
                "the connection was lost before the reply came; ask again with the same id",
            ),
            Self::Undecodable(why) => write!(f, "the reply cannot be read: {why}"),
            Self::Overrun => f.write_str("replies came faster than they were taken"),
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotSent(error) => Some(error),
            _ => None,
        }
    }
}

/// How long a reply is awaited unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One request: set what belongs to it, then `.await` the reply, or take several as a
/// [`stream`](Self::stream).
#[must_use = "nothing is asked until it is awaited"]
pub struct Ask<'a, R> {
    client: &'a Client,
    queue: &'a Queue,
    draft: Draft,
    timeout: Duration,
    asks: PhantomData<fn() -> R>,
}

impl<'a, R: Request> Ask<'a, R> {
    pub(crate) fn new(client: &'a Client, queue: &'a Queue, request: &R) -> Self {
        Self {
            client,
            queue,
            draft: Draft::new(request),
            timeout: TIMEOUT,
            asks: PhantomData,
        }
    }

    /// How long to wait for a reply, and in a stream for each. Default 30 s.
    ///
    /// The request itself does not expire; let it with [`expires_after`](Self::expires_after).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// See [`Draft::key`].
    pub fn key(self, key: impl Into<Text>) -> Self {
        self.with(|draft| draft.key(key))
    }

    /// See [`Draft::id`]. Asking again with the same id, in a queue with a dedup window, is answered
    /// with the same reply.
    pub fn id(self, id: impl Into<Text>) -> Self {
        self.with(|draft| draft.id(id))
    }

    /// See [`Draft::expires_after`].
    pub fn expires_after(self, time: Duration) -> Self {
        self.with(|draft| draft.expires_after(time))
    }

    /// See [`Draft::header`].
    pub fn header(self, name: impl Into<Text>, value: impl Into<Bytes>) -> Self {
        self.with(|draft| draft.header(name, value))
    }

    /// Sends the request and answers every reply as it comes, the last one last. Dropping the stream
    /// drops what still comes.
    ///
    /// # Errors
    /// [`RequestError::NotSent`]; everything later comes through the stream and ends it.
    pub async fn stream(self) -> Result<Replies<R>, RequestError> {
        self.client
            .ask(self.queue, self.draft, self.timeout, true)
            .await
    }

    fn with(mut self, change: impl FnOnce(Draft) -> Draft) -> Self {
        self.draft = change(self.draft);
        self
    }
}

impl<'a, R: Request> IntoFuture for Ask<'a, R> {
    type Output = Result<R::Reply, RequestError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let asked = self
            .client
            .ask::<R>(self.queue, self.draft, self.timeout, false);
        Box::pin(async move { asked.await?.last().await })
    }
}
