//! An open connection to a transport.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore_core::{
    Capabilities, Clock, ConnectOptions, Declare, Error, ErrorKind, Ids, Limits, Name, Outgoing,
    Part, Published, Result, Stats, Store, Text, Topology, Transport, chaos::Flaw, partition_of,
};

use crate::{
    Ask, DeadLetters, Draft, Message, Publish, Queue, Replies, Request, RequestError, Target,
    replies::Inbox, store::Books, telemetry,
};

/// An open connection to a transport: publishes and administers; workers run on it. Cheap to clone,
/// all clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    declare: Declare,
    limits: Limits,
    /// Queues declared by this client. One that is found missing is forgotten and declared again.
    declared: Mutex<BTreeMap<Name, Arc<Topology>>>,
    sent: telemetry::Sent,
    inbox: Inbox,
    books: Books,
}

impl Client {
    /// A client over any transport, also one of your own. `options` must be those the transport
    /// was made with: client and transport share clock and ids.
    pub fn new(
        transport: Arc<dyn Transport>,
        options: &ConnectOptions,
        declare: Declare,
        limits: Limits,
    ) -> Self {
        let (clock, ids) = (Arc::clone(&options.clock), Arc::clone(&options.ids));
        let books = Books::new(&*transport, None, &clock);
        Self {
            inner: Arc::new(Inner {
                sent: telemetry::Sent::new(transport.system()),
                inbox: Inbox::new(transport.system()),
                transport,
                clock,
                ids,
                declare,
                limits,
                declared: Mutex::default(),
                books,
            }),
        }
    }

    /// The same client with this store for dedup marks and session state. All processes that share
    /// a queue must share its store. Clones made earlier go on without it.
    ///
    /// # Errors
    /// `Invalid` where the transport keeps marks and state itself, together with its messages.
    pub fn with_store(self, store: Arc<dyn Store>) -> Result<Self> {
        let transport = Arc::clone(self.transport());
        if transport.store().is_some() {
            let text = format!(
                "{} keeps dedup marks and session state itself, together with its messages; \
                 leave the store out",
                transport.system()
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let clock = Arc::clone(self.clock());
        Ok(Self {
            inner: Arc::new(Inner {
                books: Books::new(&*transport, Some(store), &clock),
                sent: telemetry::Sent::new(transport.system()),
                inbox: Inbox::new(transport.system()),
                transport,
                clock,
                ids: Arc::clone(self.ids()),
                declare: self.declare_mode(),
                limits: *self.limits(),
                declared: Mutex::default(),
            }),
        })
    }

    /// Publishes one message: set what belongs to it, then await it.
    ///
    /// The first publish to a queue declares it, unless the client is read-only.
    ///
    /// # Errors
    /// `Invalid` before anything is sent; `NoSuchQueue`, `Rejected`, `Full` and `Unavailable` when
    /// certainly nothing was stored; `Unknown` when it may have been.
    pub fn publish<'a, M: Message, T: Target>(
        &'a self,
        target: &'a T,
        message: &M,
    ) -> Publish<'a, Self, T> {
        Publish::new(self, target, Draft::new(message))
    }

    /// Asks, and waits for the reply: set what belongs to the request, then await it, or take
    /// several replies as a [`stream`](Ask::stream). Any number can be out at a time.
    ///
    /// The first request opens this client's inbox for replies, which lives as long as the client or
    /// its connection.
    pub fn request<'a, R: Request>(&'a self, queue: &'a Queue, request: &R) -> Ask<'a, R> {
        Ask::new(self, queue, request)
    }

    /// Publishes many messages in one pipelined call. One answer each, in order; one that fails
    /// costs its neighbours nothing.
    pub async fn publish_all<T: Target + Sync>(
        &self,
        target: &T,
        messages: impl IntoIterator<Item = impl Into<Draft>>,
    ) -> Vec<Result<Published>> {
        let drafts: Vec<Draft> = messages.into_iter().map(Into::into).collect();
        self.send(target, drafts).await
    }

    /// Creates the queue now instead of at first use, or verifies it where the client is read-only.
    ///
    /// # Errors
    /// `TopologyDiffers` with what differs; `NoSuchQueue` where it is missing and may not be created.
    pub async fn declare(&self, queue: &Queue) -> Result<()> {
        self.ensure(queue.topology()).await
    }

    /// Figures of a queue, as far as the broker gives them.
    ///
    /// # Errors
    /// `NoSuchQueue`, or what kept the broker from answering.
    pub async fn stats(&self, queue: &Queue) -> Result<Stats> {
        let name = &queue.topology().queue;
        self.inner.transport.admin().stats(name).await
    }

    /// The dead letters of a queue.
    pub fn dead_letters(&self, queue: &Queue) -> DeadLetters {
        DeadLetters::new(self.clone(), queue.topology().queue.clone())
    }

    /// Brings back a session that was set aside, [`Worker::set_aside_sessions`]: its messages are
    /// handled again from now on. Those that became dead letters meanwhile stay there; redrive them
    /// before new ones are published, where the order matters.
    ///
    /// [`Worker::set_aside_sessions`]: crate::Worker::set_aside_sessions
    ///
    /// # Errors
    /// `Unsupported` for a queue without sessions, or what kept the store from answering.
    pub async fn bring_back_session(&self, queue: &Queue, key: impl Into<Text>) -> Result<()> {
        let (topology, key) = (queue.topology(), key.into());
        let of = topology.partitions;
        if of == 0 {
            let text = format!("the queue \"{}\" has no sessions", topology.queue);
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let index = partition_of(&key, of);
        let scope = topology.scope(Part::Partition { index, of });
        let store = &self.books().store;
        store.set_aside(&scope, &key, false, None).await
    }

    /// What the transport keeps by itself.
    pub fn capabilities(&self) -> &Capabilities {
        self.inner.transport.capabilities()
    }

    /// Ends the connection: what was accepted is confirmed first, for at most 5 seconds. Later calls
    /// on any clone answer `Closed`. Stop workers before.
    pub async fn close(&self) {
        self.inner.transport.close(Duration::from_secs(5)).await;
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.inner.transport
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(crate) fn ids(&self) -> &Arc<dyn Ids> {
        &self.inner.ids
    }

    pub(crate) fn books(&self) -> &Books {
        &self.inner.books
    }

    pub(crate) fn declare_mode(&self) -> Declare {
        self.inner.declare
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    pub(crate) async fn send_one<T: Target>(&self, target: &T, draft: Draft) -> Result<Published> {
        let mut answers = self.send(target, vec![draft]).await;
        let answer = answers.pop().unwrap_or_else(|| Err(no_answer()));
        answer.map_err(|error| match error.kind() {
            ErrorKind::Unknown if Flaw::UnknownIsRefused.on() => {
                Error::new(ErrorKind::Rejected, "the publish failed")
            }
            _ => error,
        })
    }

    /// Sends a request. All of it is over within `timeout`.
    pub(crate) async fn ask<R: Request>(
        &self,
        queue: &Queue,
        draft: Draft,
        timeout: Duration,
        parts: bool,
    ) -> Result<Replies<R>, RequestError> {
        let sent = async {
            let inner = &self.inner;
            let id = inner.ids.text();
            let expected = inner
                .inbox
                .expect(&inner.transport, id.clone(), timeout, parts);
            let (address, replies) = expected.await?;
            self.send_one(queue, draft.asks(id, address)).await?;
            Ok(replies)
        };
        match tokio::time::timeout(timeout, sent).await {
            Ok(sent) => sent.map_err(RequestError::NotSent),
            Err(_) => Err(RequestError::TimedOut(timeout)),
        }
    }

    async fn send<T: Target>(&self, target: &T, drafts: Vec<Draft>) -> Vec<Result<Published>> {
        let now = self.inner.clock.wall();
        let mut answers = Vec::with_capacity(drafts.len());
        let mut batch = Vec::with_capacity(drafts.len());
        for draft in drafts {
            match draft.finish(&self.inner.limits, now) {
                Err(error) => answers.push(Some(Err(error))),
                Ok((mut envelope, delay)) => {
                    if envelope.id.is_empty() {
                        envelope.id = self.inner.ids.text();
                    }
                    match target.outgoing(envelope, delay) {
                        Err(error) => answers.push(Some(Err(error))),
                        Ok(outgoing) => {
                            answers.push(None);
                            batch.push(outgoing);
                        }
                    }
                }
            }
        }
        if let Some(topology) = target.declares()
            && !batch.is_empty()
            && let Err(error) = self.ensure(topology).await
        {
            let again = || Err(error.again());
            let answers = answers.into_iter();
            return answers.map(|a| a.unwrap_or_else(again)).collect();
        }
        let mut sent = self.send_batch(batch).await.into_iter();
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| sent.next().unwrap_or_else(|| Err(no_answer()))))
            .collect()
    }

    /// The one way out: everything published by client or handler passes here.
    pub(crate) async fn send_batch(&self, mut batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let begun = self.inner.clock.monotonic();
        let span = telemetry::publish_span(self.inner.transport.system(), &mut batch);
        let to: Vec<_> = batch.iter().map(|out| out.to.clone()).collect();
        let answers =
            tracing::Instrument::instrument(self.inner.transport.publish(batch), span).await;
        self.inner
            .sent
            .count(&answers, self.inner.clock.monotonic().saturating_sub(begun));
        for (to, answer) in to.iter().zip(&answers) {
            if let (longshore_core::Destination::Queue(queue, _), Err(error)) = (to, answer)
                && error.kind() == ErrorKind::NoSuchQueue
            {
                self.forget(queue);
            }
        }
        answers
    }

    /// Sends an answer and waits until the broker has it. Who asked may be gone; that is no error.
    pub(crate) async fn answer(&self, mut out: Outgoing) -> Result<()> {
        out.envelope.sent_at = Some(self.clock().wall());
        if let Err(defect) = self.limits().check(&out.envelope) {
            let text = format!("the reply breaks a limit: {}", defect.detail);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let answer = self.send_batch(vec![out]).await.pop();
        match answer.unwrap_or_else(|| Err(no_answer())) {
            Err(error) if error.kind() == ErrorKind::NoSuchQueue => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Declares a queue once.
    pub(crate) async fn ensure(&self, topology: &Arc<Topology>) -> Result<()> {
        let known = self.declared().get(&topology.queue).cloned();
        if known.is_some_and(|known| Arc::ptr_eq(&known, topology) || known == *topology) {
            return Ok(());
        }
        let can = self.capabilities();
        let asked = [
            (!topology.lanes.is_empty() && !can.lanes, "priority lanes"),
            (topology.partitions > 0 && !can.partitions, "sessions"),
        ];
        if let Some((_, what)) = asked.iter().find(|(missing, _)| *missing) {
            let system = self.inner.transport.system();
            let text = format!("{what} cannot be kept on {system}; use another transport");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.inner
            .transport
            .declare(topology, self.inner.declare)
            .await?;
        self.declared()
            .insert(topology.queue.clone(), Arc::clone(topology));
        Ok(())
    }

    fn forget(&self, queue: &Name) {
        self.declared().remove(queue);
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Arc<Topology>>> {
        self.inner
            .declared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn no_answer() -> Error {
    Error::new(
        ErrorKind::Unknown,
        "the transport gave no answer for this message",
    )
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("transport", &self.inner.transport.system())
            .finish_non_exhaustive()
    }
}
