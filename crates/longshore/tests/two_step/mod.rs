//! The memory transport as one that keeps no marks: the store is another place, and settlement, mark
//! and state are two steps; or as it is. Each transport over it is a process that can die.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Declare, Delivery, Error, ErrorKind, Mark, MarkWrite, Membership,
    Outgoing, Published, Receipt, Result, Session, Settlement, Settler, Source, Standing,
    StateWrite, Store, Subscribed, Subscription, Take, Text, Topology, Transport, Unsettled,
};

/// What goes wrong in one process, and what it has seen.
#[derive(Default)]
pub struct Faults {
    /// Every call of the store fails.
    pub store_down: AtomicBool,
    /// Only writes of marks do.
    pub write_down: AtomicBool,
    /// No start of a suspect is noted.
    pub start_down: AtomicBool,
    /// Settlements get no answer and do nothing.
    pub settle_silent: AtomicBool,
    /// No call is ever answered again: the process is dead.
    pub dead: AtomicBool,
    /// Takes that were answered.
    pub takes: AtomicUsize,
    /// Every call of the store and every settlement, in order.
    pub calls: Mutex<Vec<String>>,
}

impl Faults {
    pub fn set(fault: &AtomicBool, on: bool) {
        fault.store(on, Ordering::SeqCst);
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("not poisoned").clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().expect("not poisoned").push(call.into());
    }

    async fn store(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        if self.store_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the test took it down"));
        }
        Ok(())
    }
}

/// One process: its transport, and the store as it sees it.
pub struct TwoStep {
    inner: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    faults: Arc<Faults>,
    capabilities: Capabilities,
}

impl TwoStep {
    pub fn over(
        inner: Arc<dyn Transport>,
        store: Arc<dyn Store>,
    ) -> (Arc<dyn Transport>, Arc<Faults>) {
        let mut capabilities = inner.capabilities().clone();
        capabilities.atomic_settle = false;
        capabilities.dedup_at_publish = false;
        Self::with(inner, store, capabilities)
    }

    /// In one step, as the transport itself does it.
    pub fn atomic(inner: Arc<dyn Transport>) -> (Arc<dyn Transport>, Arc<Faults>) {
        let store = inner.store().expect("memory keeps marks");
        let capabilities = inner.capabilities().clone();
        Self::with(inner, store, capabilities)
    }

    fn with(
        inner: Arc<dyn Transport>,
        store: Arc<dyn Store>,
        capabilities: Capabilities,
    ) -> (Arc<dyn Transport>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let transport = Self {
            inner,
            store: Arc::new(Seen {
                inner: store,
                faults: Arc::clone(&faults),
            }),
            faults: Arc::clone(&faults),
            capabilities,
        };
        (Arc::new(transport), faults)
    }
}

#[async_trait]
impl Transport for TwoStep {
    fn system(&self) -> &'static str {
        "two-step"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.inner.declare(topology, declare).await
    }

    async fn publish(&self, mut batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        if !self.capabilities.dedup_at_publish {
            for outgoing in &mut batch {
                outgoing.dedup_window = None;
            }
        }
        self.inner.publish(batch).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        let (source, settler) = self.inner.subscribe(subscription).await?;
        let settler = Plain {
            inner: settler,
            atomic: self.capabilities.atomic_settle,
            faults: Arc::clone(&self.faults),
        };
        match self.capabilities.dedup_at_publish {
            true => Ok((source, Arc::new(settler))),
            false => Ok((Box::new(Unmarked(source)), Arc::new(settler))),
        }
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        lock: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.inner.join(queue, declare, lock).await
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::clone(&self.store))
    }

    async fn inbox(&self) -> Result<(longshore_core::ReplyAddress, Box<dyn Source>)> {
        self.inner.inbox().await
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn close(&self, within: Duration) {
        self.inner.close(within).await;
    }
}

struct Unmarked(Box<dyn Source>);

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

struct Plain {
    inner: Arc<dyn Settler>,
    atomic: bool,
    faults: Arc<Faults>,
}

#[async_trait]
impl Settler for Plain {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        if self.faults.start_down.load(Ordering::SeqCst) {
            self.faults.note("start refused");
            let refused = || Error::new(ErrorKind::Unavailable, "the test took it down");
            return starts.iter().map(|_| Err(refused())).collect();
        }
        self.inner.start(starts).await
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        if self.faults.settle_silent.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        for settlement in &batch {
            assert!(
                self.atomic || settlement.mark.is_none() && settlement.state.is_none(),
                "this transport cannot apply them"
            );
            self.faults.note(format!("settle {:?}", settlement.verdict));
        }
        self.inner.settle(batch).await
    }
}

/// The store as one process sees it.
struct Seen {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Store for Seen {
    fn shared(&self) -> bool {
        self.inner.shared()
    }

    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>> {
        self.faults.store().await?;
        let marks = self.inner.take(scope, takes).await?;
        self.faults.takes.fetch_add(takes.len(), Ordering::SeqCst);
        for mark in &marks {
            self.faults.note(format!("take {mark:?}"));
        }
        Ok(marks)
    }

    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: Duration,
    ) -> Result<Vec<bool>> {
        self.faults.store().await?;
        self.inner.renew(scope, leases, lease).await
    }

    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()> {
        self.faults.store().await?;
        if self.faults.write_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the test took it down"));
        }
        for mark in marks {
            self.faults.note(format!("write {:?}", mark.change));
        }
        self.inner.write(scope, marks).await
    }

    async fn grant(&self, scope: &Text, token: u64) -> Result<()> {
        self.faults.store().await?;
        self.faults.note(format!("grant {scope}"));
        self.inner.grant(scope, token).await
    }

    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session> {
        self.faults.store().await?;
        self.inner.load(scope, key, message).await
    }

    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()> {
        self.faults.store().await?;
        self.faults.note("save");
        self.inner.save(scope, write).await
    }

    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()> {
        self.faults.store().await?;
        self.faults.note(format!("set aside {aside}"));
        self.inner.set_aside(scope, key, aside, token).await
    }
}
