//! The memory transport behind a source that reads ahead, as those of real brokers do, and that fails on
//! request.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use longshore_core::{
    Admin, Capabilities, Declare, Delivery, Error, ErrorKind, Membership, Outgoing, Part,
    Published, Receipt, ReplyAddress, Result, Settlement, Settler, Source, Subscribed,
    Subscription, Text, Topology, Transport, Unsettled,
};

/// What the broker does wrong at the moment, and what it has seen.
#[derive(Default)]
pub struct Faults {
    /// Every publish fails with this.
    pub publish: Mutex<Option<ErrorKind>>,
    /// Every settlement fails with this.
    pub settle: Mutex<Option<ErrorKind>>,
    /// No start of a suspect is noted.
    pub start: Mutex<Option<ErrorKind>>,
    /// How often that was asked for.
    pub started: AtomicUsize,
    /// Settlements get no answer.
    pub silent: AtomicBool,
    /// Subscribing waits for ever.
    pub unreachable: AtomicBool,
    /// Subscribing to this part fails.
    pub unavailable: Mutex<Option<Part>>,
    /// So many looks at a source end it.
    pub ends: AtomicUsize,
    pub subscribed: AtomicUsize,
    /// The verdicts that were settled, in words.
    pub settled: Mutex<Vec<String>>,
    /// The most that was held unsettled.
    pub most_held: AtomicUsize,
    held: AtomicUsize,
}

impl Faults {
    pub fn set(fault: &Mutex<Option<ErrorKind>>, kind: Option<ErrorKind>) {
        *fault.lock().expect("not poisoned") = kind;
    }

    fn check(fault: &Mutex<Option<ErrorKind>>) -> Result<()> {
        match *fault.lock().expect("not poisoned") {
            Some(kind) => Err(Error::new(kind, "a fault of the test")),
            None => Ok(()),
        }
    }

    pub fn settlements(&self) -> Vec<String> {
        self.settled.lock().expect("not poisoned").clone()
    }
}

pub struct ReadingAhead {
    inner: Arc<dyn Transport>,
    capabilities: Capabilities,
    faults: Arc<Faults>,
}

impl ReadingAhead {
    pub fn over(inner: Arc<dyn Transport>) -> (Arc<dyn Transport>, Arc<Faults>) {
        Self::with(None, inner)
    }

    /// A broker that takes back what stays unsettled this long, or says so.
    pub fn with(
        longest_lock: Option<Duration>,
        inner: Arc<dyn Transport>,
    ) -> (Arc<dyn Transport>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        let mut capabilities = inner.capabilities().clone();
        capabilities.longest_lock = longest_lock;
        let transport = Self {
            inner,
            capabilities,
            faults: Arc::clone(&faults),
        };
        (Arc::new(transport), faults)
    }
}

#[async_trait]
impl Transport for ReadingAhead {
    fn system(&self) -> &'static str {
        "reading-ahead"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<()> {
        self.inner.declare(topology, declare).await
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Published>> {
        if Faults::check(&self.faults.publish).is_err() {
            let refuse = |_| Faults::check(&self.faults.publish).map(|()| Published::Accepted);
            return batch.iter().map(refuse).collect();
        }
        self.inner.publish(batch).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed> {
        self.faults.subscribed.fetch_add(1, Ordering::SeqCst);
        if self.faults.unreachable.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if *self.faults.unavailable.lock().expect("not poisoned") == Some(subscription.part) {
            return Err(Error::new(ErrorKind::Unavailable, "a fault of the test"));
        }
        let (source, settler) = self.inner.subscribe(subscription).await?;
        let source = Buffered {
            inner: source,
            buffer: VecDeque::new(),
            faults: Arc::clone(&self.faults),
        };
        let settler = Unreliable {
            inner: settler,
            faults: Arc::clone(&self.faults),
        };
        Ok((Box::new(source), Arc::new(settler)))
    }

    async fn join(
        &self,
        queue: &Arc<Topology>,
        declare: Declare,
        lock: Duration,
    ) -> Result<Box<dyn Membership>> {
        self.inner.join(queue, declare, lock).await
    }

    async fn inbox(&self) -> Result<(ReplyAddress, Box<dyn Source>)> {
        self.inner.inbox().await
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn close(&self, within: Duration) {
        self.inner.close(within).await;
    }
}

struct Buffered {
    inner: Box<dyn Source>,
    buffer: VecDeque<Delivery>,
    faults: Arc<Faults>,
}

impl Source for Buffered {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut Vec<Delivery>,
    ) -> Poll<Result<usize>> {
        let ends = &self.faults.ends;
        let one_less = |left: usize| left.checked_sub(1);
        if ends
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
        {
            return Poll::Ready(Err(Error::new(ErrorKind::Denied, "ended by the test")));
        }
        let mut arrived = Vec::new();
        let polled = loop {
            match self.inner.poll_receive(cx, usize::MAX, &mut arrived) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                other => break other,
            }
        };
        let held = self.faults.held.fetch_add(arrived.len(), Ordering::SeqCst) + arrived.len();
        self.faults.most_held.fetch_max(held, Ordering::SeqCst);
        self.buffer.extend(arrived);
        if self.buffer.is_empty() {
            return polled;
        }
        let taken = max.min(self.buffer.len());
        into.extend(self.buffer.drain(..taken));
        Poll::Ready(Ok(taken))
    }

    fn poll_lost(&mut self, cx: &mut Context<'_>, into: &mut Vec<Receipt>) -> Poll<()> {
        self.inner.poll_lost(cx, into)
    }

    fn stop(&mut self) {
        self.inner.stop();
    }

    fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        self.inner.set_prefetch(prefetch)
    }

    fn trouble(&self) -> Option<Text> {
        self.inner.trouble()
    }
}

struct Unreliable {
    inner: Arc<dyn Settler>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Settler for Unreliable {
    async fn start(&self, starts: &[(Receipt, u32)]) -> Vec<Result<()>> {
        self.faults.started.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = Faults::check(&self.faults.start) {
            return vec![Err(error)];
        }
        self.inner.start(starts).await
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Vec<Result<(), Unsettled>> {
        if self.faults.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let refuse = |s: Settlement| match Faults::check(&self.faults.settle) {
            Ok(()) => Ok(()),
            Err(error) => Err(s.refused(error)),
        };
        if Faults::check(&self.faults.settle).is_err() {
            return batch.into_iter().map(refuse).collect();
        }
        let words: Vec<_> = batch.iter().map(|s| format!("{:?}", s.verdict)).collect();
        let answers = self.inner.settle(batch).await;
        for (word, answer) in words.into_iter().zip(&answers) {
            self.faults.held.fetch_sub(1, Ordering::SeqCst);
            if answer.is_ok() {
                self.faults.settled.lock().expect("not poisoned").push(word);
            }
        }
        answers
    }
}
