//! What a handler knows of its message beside the message itself.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use longshore_core::{Envelope, Error, ErrorKind, Result, Text, content_id, derived_id};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    Client, Draft, Message, Publish, Target,
    answer::{self, Answer},
    codec,
    outbox::Outbox,
    session::{Place, Session},
};

/// Bytes of trace context that travel on, what W3C asks every system to keep
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>): more would let a publisher fill the
/// headers of what the handler sends.
const LONGEST_TRACE: usize = 512;

/// What a handler knows of its message beside the message itself, and what it may do.
///
/// Owned and cheap to clone. Once the handler has ended it is sealed: a clone that outlives it can
/// still be read, but [`publish`](Self::publish) and
/// [`Session::set_state`](crate::Session::set_state) answer [`ErrorKind::Closed`].
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    client: Client,
    start: Start,
    /// The id, or where a plain client sent none a hash of the content; made when asked for.
    idempotency_key: OnceLock<Text>,
    outbox: Mutex<Outbox>,
    /// Replies sent so far by this start.
    parts: AtomicU32,
    token: OnceLock<CancellationToken>,
    cancelled: AtomicBool,
    handled: AtomicBool,
    sealed: AtomicBool,
}

/// What is known when an attempt starts.
pub(crate) struct Start {
    pub(crate) envelope: Envelope,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    /// On the client's monotonic clock.
    pub(crate) deadline: Duration,
    /// Where its session has its state, in a queue with sessions.
    pub(crate) place: Option<Place>,
}

impl Context {
    pub(crate) fn new(client: Client, start: Start) -> Self {
        Self(Arc::new(Inner {
            client,
            start,
            idempotency_key: OnceLock::new(),
            outbox: Mutex::default(),
            parts: AtomicU32::new(0),
            token: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            handled: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
        }))
    }

    /// A context for another message, in the same allocation where nobody holds a clone any more.
    pub(crate) fn recycle(mut self, start: Start) -> Self {
        let Some(inner) = Arc::get_mut(&mut self.0) else {
            return Self::new(self.client().clone(), start);
        };
        inner.start = start;
        inner.idempotency_key = OnceLock::new();
        inner.token = OnceLock::new();
        *inner.parts.get_mut() = 0;
        *inner.cancelled.get_mut() = false;
        *inner.handled.get_mut() = false;
        *inner.sealed.get_mut() = false;
        self
    }

    /// The message id; empty where a plain client sent none.
    pub fn id(&self) -> &str {
        &self.0.start.envelope.id
    }

    /// The same for every try and every copy of this message, and never empty: the message id, or
    /// a hash of type, key and body where it came without one. Use it to make effects happen once.
    pub fn idempotency_key(&self) -> &str {
        let envelope = &self.0.start.envelope;
        if !envelope.id.is_empty() {
            return &envelope.id;
        }
        self.0.idempotency_key.get_or_init(|| content_id(envelope))
    }

    /// The wire name of the message's type.
    pub fn message_type(&self) -> &str {
        &self.0.start.envelope.kind
    }

    /// The session key.
    pub fn key(&self) -> Option<&str> {
        self.0.start.envelope.key.as_deref()
    }

    /// The session this message belongs to, and its state.
    pub fn session(&self) -> Session {
        Session::of(self.clone())
    }

    /// What ties this message to another.
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.start.envelope.correlation_id.as_deref()
    }

    /// The first header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.start.envelope.header(name)
    }

    /// Everything that travelled.
    pub fn envelope(&self) -> &Envelope {
        &self.0.start.envelope
    }

    /// Which start of a handler for this message this is: 1 for the first, counted over all
    /// processes and restarts.
    pub fn attempt(&self) -> u32 {
        self.0.start.attempt
    }

    /// How many there may be.
    pub fn max_attempts(&self) -> u32 {
        self.0.start.max_attempts
    }

    /// How long until the time limit passes and the handler is dropped; zero afterwards.
    pub fn time_left(&self) -> Duration {
        let now = self.0.client.clock().monotonic();
        self.0.start.deadline.saturating_sub(now)
    }

    /// Fires when going on is useless: the lock was lost and the message may run elsewhere, the time
    /// limit has passed (for handlers that cannot be dropped), or the worker's stop deadline has.
    pub fn cancellation(&self) -> CancellationToken {
        let token = self.0.token.get_or_init(CancellationToken::new);
        if self.0.cancelled.load(Ordering::SeqCst) {
            token.cancel();
        }
        token.clone()
    }

    /// Publishes a message if, and only after, this handler succeeds, and before its own message is
    /// completed. Set what belongs to it, then await it (which does not wait for the broker).
    ///
    /// Its id is derived from the parent's, so a try that is repeated publishes the same ids: with
    /// a dedup window downstream the pipeline is effectively once. Each start begins with nothing
    /// kept. When the publish itself fails, the handler's message is retried. The trace context
    /// travels on.
    ///
    /// # Errors
    /// `Invalid` for a message that breaks a limit, `Full` above 10,000 kept messages, `Closed` once
    /// the handler has ended.
    pub fn publish<'a, M: Message, T: Target>(
        &'a self,
        target: &'a T,
        message: &M,
    ) -> Publish<'a, Self, T> {
        Publish::new(self, target, Draft::new(message))
    }

    /// Sends one of several replies now, to whoever asked: progress, or a piece of the result. What
    /// the handler returns is the last. `part` is the request's `Reply`; whoever asked takes it with
    /// [`Ask::stream`](crate::Ask::stream). Another try of the handler sends its parts again.
    ///
    /// `Ok` once the broker has it, and where the message is no request and nobody is to get it.
    ///
    /// # Errors
    /// `Invalid` for a reply that cannot be encoded or breaks a limit, `Full` above 999,999 replies,
    /// `Closed` once the handler has ended, and what publishing answers.
    pub async fn reply_part<T: Serialize>(&self, part: &T) -> Result<()> {
        let body = codec::encode(part, "the reply")?;
        if self.0.sealed.load(Ordering::SeqCst) {
            return Err(sealed());
        }
        let place = self.0.parts.fetch_add(1, Ordering::SeqCst) + 1;
        if place > answer::MOST_PARTS {
            self.0.parts.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::new(
                ErrorKind::Full,
                "one start of a handler sends at most 999,999 replies",
            ));
        }
        match Answer::Part(place, body.into()).to(self.envelope(), self.attempt()) {
            Some(out) => self.client().answer(out).await,
            None => Ok(()),
        }
    }

    /// What the message is answered with, once everything else is sent.
    pub(crate) fn answer(&self, answer: Answer) {
        let mut outbox = self.outbox();
        if !self.0.sealed.load(Ordering::SeqCst) {
            outbox.answer = Some(answer);
        }
    }

    pub(crate) fn keep<T: Target>(&self, target: &T, mut draft: Draft) -> Result<()> {
        for name in ["traceparent", "tracestate"] {
            if let Some(value) = self.header(name)
                && value.len() <= LONGEST_TRACE
                && !draft.has_header(name)
            {
                draft = draft.header(name, value.to_owned());
            }
        }
        let client = &self.0.client;
        let (mut envelope, delay) = draft.finish(client.limits(), client.clock().wall())?;
        let mut outbox = self.outbox();
        if self.0.sealed.load(Ordering::SeqCst) {
            return Err(sealed());
        }
        if envelope.id.is_empty() {
            envelope.id = derived_id(self.idempotency_key(), outbox.next_index());
        }
        outbox.keep(
            target.declares().cloned(),
            target.outgoing(envelope, delay)?,
        )
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.0.start.place.as_ref()
    }

    /// The state this handler has set, or cleared, if it succeeds.
    pub(crate) fn pending_state(&self) -> Option<Option<Bytes>> {
        self.outbox().state.clone()
    }

    pub(crate) fn keep_state(&self, state: Option<Bytes>) -> Result<()> {
        let mut outbox = self.outbox();
        if self.0.sealed.load(Ordering::SeqCst) {
            return Err(sealed());
        }
        outbox.state = Some(state);
        Ok(())
    }

    /// On whose behalf a state is read and written. A message without an id has no other try that
    /// could be known: two equal ones are two.
    pub(crate) fn state_message(&self) -> Text {
        let id = &self.0.start.envelope.id;
        match id.is_empty() {
            true => self.client().ids().text(),
            false => id.clone(),
        }
    }

    /// The handler has ended: from now on nothing more is kept. Answers what was.
    pub(crate) fn seal(&self) -> Outbox {
        let mut outbox = self.outbox();
        self.0.sealed.store(true, Ordering::SeqCst);
        std::mem::take(&mut *outbox)
    }

    /// Whether this is the first call of a handler for this start.
    pub(crate) fn first_call(&self) -> bool {
        !self.0.handled.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(token) = self.0.token.get() {
            token.cancel();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// The envelope for the broker: taken where nobody else can look any more, copied otherwise.
    pub(crate) fn take_envelope(&mut self) -> Envelope {
        match Arc::get_mut(&mut self.0) {
            Some(inner) => std::mem::take(&mut inner.start.envelope),
            None => self.0.start.envelope.clone(),
        }
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sealed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the handler of this context has ended, and nothing can be published or set through it",
    )
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("envelope", &self.0.start.envelope)
            .field("attempt", &self.0.start.attempt)
            .finish_non_exhaustive()
    }
}
