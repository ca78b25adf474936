//! Dedup windows: an id that completed never reaches a handler again, two copies never run at the
//! same time, and whatever fails nothing is lost by it.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod two_step;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{
    Backoff, Client, ConnectOptions, Context, Declare, Draft, ErrorKind, HandlerError, Health,
    Limits, Message, Published, Queue, Reply, Request, Router, Topic, Worker, WorkerHandle,
};
use longshore_core::{
    Destination, Envelope, Name, Outgoing, Part, ReplyAddress, Source, Store, Transport,
};
use longshore_memory::{MemoryBroker, MemoryStore};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use queue_under_test::{Log, Order, Refund, until};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use two_step::{Faults, TwoStep};

const WINDOW: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A broker and a store, each alone in the world, and processes that share them.
struct Port {
    options: ConnectOptions,
    broker: MemoryBroker,
    store: Arc<dyn Store>,
    queue: Queue,
    /// Process, id, attempt: what handlers have done.
    effects: Log<(&'static str, u64, u32)>,
    /// The same, when they begin.
    starts: Log<(&'static str, u64, u32)>,
    running: Arc<AtomicUsize>,
    overlapped: Arc<AtomicBool>,
}

/// A client as a process of its own.
struct Process {
    name: &'static str,
    client: Client,
    faults: Arc<Faults>,
}

impl Process {
    /// Everything it holds comes back, and nothing it does has any effect from now on.
    async fn dies(&self) {
        Faults::set(&self.faults.dead, true);
        self.client.close().await;
    }
}

impl Port {
    fn new() -> Self {
        Self::with(|queue| queue)
    }

    fn with(queue: impl FnOnce(Queue) -> Queue) -> Self {
        let options = ConnectOptions::default();
        Self {
            broker: MemoryBroker::new(&options),
            store: Arc::new(MemoryStore::new(options.clock.clone())),
            queue: queue(Queue::new("orders").dedup_window(WINDOW)),
            options,
            effects: Log::new(),
            starts: Log::new(),
            running: Arc::default(),
            overlapped: Arc::default(),
        }
    }

    fn process(&self, name: &'static str) -> Process {
        let (transport, faults) = TwoStep::over(self.broker.open(), Arc::clone(&self.store));
        let (declare, limits) = (Declare::Create, Limits::default());
        Process {
            name,
            client: Client::new(transport, &self.options, declare, limits),
            faults,
        }
    }

    /// A process whose broker keeps the marks itself.
    fn atomic_process(&self, name: &'static str) -> Process {
        let (transport, faults) = TwoStep::atomic(self.broker.open());
        let (declare, limits) = (Declare::Create, Limits::default());
        Process {
            name,
            client: Client::new(transport, &self.options, declare, limits),
            faults,
        }
    }

    /// The same without a way to die.
    fn atomic_client(&self) -> Client {
        let (declare, limits) = (Declare::Create, Limits::default());
        Client::new(self.broker.open(), &self.options, declare, limits)
    }

    /// A handler that notes its effect after this long, unless `fails` says otherwise.
    fn router<F>(&self, name: &'static str, takes: Duration, fails: F) -> Router
    where
        F: Fn(&Context) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
    {
        let (starts, effects) = (self.starts.clone(), self.effects.clone());
        let (running, overlapped) = (Arc::clone(&self.running), Arc::clone(&self.overlapped));
        Router::new().handle_fn(move |order: Order, cx: Context| {
            starts.add((name, order.id, cx.attempt()));
            let (effects, fails) = (effects.clone(), fails.clone());
            let (running, overlapped) = (Arc::clone(&running), Arc::clone(&overlapped));
            async move {
                if running.fetch_add(1, Ordering::SeqCst) > 0 {
                    overlapped.store(true, Ordering::SeqCst);
                }
                tokio::time::sleep(takes).await;
                running.fetch_sub(1, Ordering::SeqCst);
                fails(&cx)?;
                effects.add((name, order.id, cx.attempt()));
                Ok(())
            }
        })
    }

    async fn worker(&self, process: &Process, router: Router) -> WorkerHandle {
        let worker = Worker::new(&process.client, &self.queue, router).lock(LEASE);
        worker.start().await.unwrap()
    }

    /// A worker whose handlers succeed at once.
    async fn plain(&self, process: &Process) -> WorkerHandle {
        let router = self.router(process.name, Duration::ZERO, |_| Ok(()));
        self.worker(process, router).await
    }

    async fn publish(&self, client: &Client, order: u64, id: &'static str) -> Published {
        let publish = client.publish(&self.queue, &Order { id: order }).id(id);
        publish.await.unwrap()
    }

    /// Waits until nothing is left but dead letters.
    async fn quiet(&self) {
        let client = self.atomic_client();
        let clock = std::time::Instant::now();
        loop {
            let stats = client.stats(&self.queue).await.unwrap();
            let left = stats.ready + stats.in_flight.unwrap() + stats.delayed.unwrap();
            if left == 0 {
                return;
            }
            assert!(clock.elapsed() < secs(30), "still there: {stats:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn effects(&self) -> Vec<(&'static str, u64, u32)> {
        self.effects.all()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_again_after_a_lost_confirm_runs_once() {
    let port = Port::new();
    let a = port.process("a");
    assert_eq!(port.publish(&a.client, 1, "m").await, Published::Accepted);
    assert_eq!(port.publish(&a.client, 1, "m").await, Published::Accepted);
    let worker = port.plain(&a).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    // And once it is done.
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_ids_other_keys_and_messages_without_an_id_are_left_alone() {
    let port = Port::new();
    let a = port.process("a");
    for (order, id, key) in [
        (1, "m", None),
        (2, "n", None),
        (3, "m", Some("k")),
        (4, "m", Some("l")),
    ] {
        let mut publish = a.client.publish(&port.queue, &Order { id: order }).id(id);
        if let Some(key) = key {
            publish = publish.key(key);
        }
        publish.await.unwrap();
    }
    let mut plain = Envelope::new(Order::TYPE, r#"{"id":5}"#);
    plain.content_type = "application/json".into();
    let outgoing = || Outgoing {
        to: Destination::Queue(Name::new("orders").unwrap(), Part::Lane(0)),
        envelope: plain.clone(),
        delay: Duration::ZERO,
        dedup_window: Some(WINDOW),
    };
    let transport = port.broker.open();
    for answer in transport.publish(vec![outgoing(), outgoing()]).await {
        answer.unwrap();
    }
    let worker = port.plain(&a).await;
    port.quiet().await;
    let mut orders: Vec<u64> = port.effects().iter().map(|effect| effect.1).collect();
    orders.sort_unstable();
    assert_eq!(orders, [1, 2, 3, 4, 5, 5]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_window_runs_from_completion_and_ends() {
    let port = Port::new();
    let a = port.process("a");
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    let done = Instant::now();
    tokio::time::sleep_until(done + WINDOW - secs(2)).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1, "just inside");
    // A duplicate does not make the window longer.
    tokio::time::sleep_until(done + WINDOW + Duration::from_millis(1)).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 2, "just outside");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_effect_runs_the_message_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    port.publish(&a.client, 1, "m").await;
    let router = port.router("a", secs(3600), |_| Ok(()));
    let first = port.worker(&a, router).await;
    until("it runs", || port.running.load(Ordering::SeqCst) == 1).await;
    a.dies().await;
    let died = Instant::now();
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(
        port.effects(),
        [("b", 1, 2)],
        "sent away at no cost while the lease lasted"
    );
    assert!(died.elapsed() <= LEASE + secs(6), "{:?}", died.elapsed());
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_effect_and_before_the_mark_runs_the_message_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.write_down, true);
    port.publish(&a.client, 1, "m").await;
    let first = port.plain(&a).await;
    port.effects.reaches(1).await;
    a.dies().await;
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1), ("b", 1, 2)]);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_mark_completes_the_message_without_another_start() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.settle_silent, true);
    port.publish(&a.client, 1, "m").await;
    let first = port.plain(&a).await;
    until("it is marked", || {
        a.faults.calls().iter().any(|c| c.starts_with("write Done"))
    })
    .await;
    a.dies().await;
    let second = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(
        b.faults.calls(),
        ["take Done { reply: None }", "settle Complete"]
    );
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn three_workers_run_each_id_once_and_never_two_copies_at_a_time() {
    let port = Port::new();
    let processes = [port.process("a"), port.process("b"), port.process("c")];
    for _ in 0..5 {
        port.publish(&processes[0].client, 1, "m").await;
    }
    let mut workers = Vec::new();
    for process in &processes {
        // Longer than a lease: it has to be renewed.
        let router = port.router(process.name, LEASE * 2 - secs(5), |_| Ok(()));
        workers.push(port.worker(process, router).await);
    }
    port.quiet().await;
    assert_eq!(port.effects().len(), 1, "{:?}", port.effects());
    assert!(!port.overlapped.load(Ordering::SeqCst));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_waits_for_a_failing_one_and_is_a_duplicate_once_that_succeeds() {
    let port = Port::new();
    let a = port.process("a");
    port.publish(&a.client, 1, "m").await;
    port.publish(&a.client, 2, "m").await;
    let router = port.router("a", secs(1), |cx| match cx.attempt() {
        1 | 2 => Err("not yet".into()),
        _ => Ok(()),
    });
    // Long enough for the copy to look in between.
    let backoff = Backoff::new(secs(20), secs(20));
    let worker = Worker::new(&a.client, &port.queue, router).backoff(backoff);
    let worker = worker.lock(LEASE).start().await.unwrap();
    let began = Instant::now();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 3)]);
    let starts = [("a", 1, 1), ("a", 1, 2), ("a", 1, 3)];
    assert_eq!(port.starts.all(), starts, "the copy waits over the retries");
    let took = began.elapsed();
    assert!(took < secs(60), "its own retry is not held back: {took:?}");
    assert!(!port.overlapped.load(Ordering::SeqCst));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_runs_once_the_first_has_become_a_dead_letter() {
    let port = Port::new();
    let a = port.process("a");
    port.publish(&a.client, 1, "m").await;
    port.publish(&a.client, 2, "m").await;
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    let router = port.router("a", secs(1), move |_| {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(HandlerError::permanent("never")),
            _ => Ok(()),
        }
    });
    let worker = port.worker(&a, router).await;
    let began = Instant::now();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1)]);
    let took = began.elapsed();
    assert!(took < LEASE / 2, "it waits for no lease to end: {took:?}");
    let dead = a
        .client
        .dead_letters(&port.queue)
        .list(None, 10)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert!(!port.overlapped.load(Ordering::SeqCst));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redriven_message_runs_whatever_the_window_says() {
    let port = Port::new();
    let a = port.process("a");
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let router = port.router("a", Duration::ZERO, move |_| {
        match fails.load(Ordering::SeqCst) {
            true => Err(HandlerError::permanent("never")),
            false => Ok(()),
        }
    });
    let worker = port.worker(&a, router).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    failing.store(false, Ordering::SeqCst);
    // Dead-lettering has released the id: another one runs, and is done.
    port.publish(&a.client, 2, "m").await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1)]);
    let dead = a.client.dead_letters(&port.queue);
    assert_eq!(dead.redrive_all(|_| ()).await.unwrap().done, 1);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1), ("a", 1, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_keeps_messages_unstarted_and_uncounted_and_the_worker_not_ready() {
    let port = Port::new();
    let a = port.process("a");
    Faults::set(&a.faults.store_down, true);
    let worker = port.plain(&a).await;
    assert_eq!(worker.health(), Health::Ready);
    port.publish(&a.client, 1, "m").await;
    let why = "the store does not answer: the test took it down";
    until("not ready", || {
        worker.health() == Health::NotReady(why.into())
    })
    .await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(port.effects(), []);
    Faults::set(&a.faults.store_down, false);
    let back = Instant::now();
    port.quiet().await;
    assert!(back.elapsed() < secs(6), "{:?}", back.elapsed());
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(worker.health(), Health::Ready);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_at_a_stop_or_a_pause_holds_back_nothing() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    Faults::set(&a.faults.store_down, true);
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    until("not ready", || worker.health() != Health::Ready).await;
    worker.pause();
    let other = port.plain(&b).await;
    port.effects.reaches(1).await;
    other.stop().await;
    worker.resume();
    port.publish(&a.client, 2, "n").await;
    until("not ready", || worker.health() != Health::Ready).await;
    let asked = Instant::now();
    worker.stop().await;
    assert!(asked.elapsed() < secs(1), "{:?}", asked.elapsed());
    let other = port.plain(&b).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("b", 1, 1), ("b", 2, 1)], "at no cost");
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_down_after_the_effect_is_waited_for_before_the_message_completes() {
    let port = Port::new();
    let a = port.process("a");
    Faults::set(&a.faults.write_down, true);
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.effects.reaches(1).await;
    until("not ready", || worker.health() != Health::Ready).await;
    // What needs no mark is not held back.
    let refund = Draft::new(&Refund { order: 1 });
    for answer in a.client.publish_all(&port.queue, [refund]).await {
        answer.unwrap();
    }
    let dead = a.client.dead_letters(&port.queue);
    tokio::time::sleep(LEASE * 4).await;
    assert_eq!(dead.list(None, 10).await.unwrap().len(), 1);
    assert!(
        !a.faults.calls().contains(&"settle Complete".to_owned()),
        "{:?}",
        a.faults.calls()
    );
    Faults::set(&a.faults.write_down, false);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    assert_eq!(worker.health(), Health::Ready);
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_lease_is_lost_is_cancelled() {
    let port = Port::new();
    let a = port.process("a");
    let cancelled = Log::new();
    let log = cancelled.clone();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let log = log.clone();
        async move {
            cx.cancellation().cancelled().await;
            log.add(Instant::now());
            Ok(())
        }
    });
    let worker = Worker::new(&a.client, &port.queue, router).lock(LEASE);
    let worker = worker.time_limit(secs(3600)).start().await.unwrap();
    port.publish(&a.client, 1, "m").await;
    until("it is taken", || a.faults.takes.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(LEASE * 5).await;
    assert_eq!(cancelled.len(), 0, "renewed all the time");
    let lost = Instant::now();
    Faults::set(&a.faults.store_down, true);
    cancelled.reaches(1).await;
    let after = cancelled.all()[0] - lost;
    assert!(after <= LEASE + secs(1) && after >= LEASE / 2, "{after:?}");
    Faults::set(&a.faults.store_down, false);
    port.quiet().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lanes_share_one_window() {
    let port = Port::with(|queue| queue.lanes(["high", "normal"]));
    let a = port.process("a");
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    let publish = a.client.publish(&port.queue, &Order { id: 2 }).id("m");
    publish.priority("high").await.unwrap();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_keep_ids_apart_by_key_and_run_each_once() {
    let port = Port::with(|queue| queue.sessions(4));
    let a = port.process("a");
    for (order, key) in [(1, "k"), (2, "l"), (3, "k"), (4, "l")] {
        let publish = a.client.publish(&port.queue, &Order { id: order }).id("m");
        publish.key(key).await.unwrap();
    }
    let router = port.router("a", secs(1), |cx| match cx.attempt() {
        1 => Err("not yet".into()),
        _ => Ok(()),
    });
    let worker = port.worker(&a, router).await;
    port.quiet().await;
    let mut effects = port.effects();
    effects.sort_unstable();
    assert_eq!(effects, [("a", 1, 2), ("a", 2, 2)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_keeps_marks_itself_answers_duplicates_at_publish_and_runs_each_once() {
    let port = Port::new();
    let client = port.atomic_client();
    assert!(client.capabilities().dedup_at_publish, "memory does");
    let router = port.router("a", Duration::ZERO, |cx| match cx.attempt() {
        1 => Err("not yet".into()),
        _ => Ok(()),
    });
    assert_eq!(port.publish(&client, 1, "m").await, Published::Accepted);
    assert_eq!(port.publish(&client, 1, "m").await, Published::Duplicate);
    let worker = Worker::new(&client, &port.queue, router)
        .start()
        .await
        .unwrap();
    port.quiet().await;
    assert_eq!(port.publish(&client, 1, "m").await, Published::Duplicate);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 2)]);
    tokio::time::sleep(WINDOW + secs(1)).await;
    assert_eq!(port.publish(&client, 1, "m").await, Published::Accepted);
    port.quiet().await;
    assert_eq!(port.effects().len(), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_is_refused_where_the_transport_keeps_marks_itself() {
    let port = Port::new();
    let error = port.atomic_client().with_store(Arc::clone(&port.store));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

#[derive(Debug, Serialize, Deserialize)]
struct GetTotal {
    order: u64,
}

impl Message for GetTotal {
    const TYPE: &'static str = "total.get";
}

impl Request for GetTotal {
    type Reply = u64;
}

/// Who asks in the raw: an inbox, and what came into it.
struct Asker {
    transport: Arc<dyn Transport>,
    address: ReplyAddress,
    inbox: Box<dyn Source>,
}

impl Asker {
    async fn new(port: &Port) -> Self {
        let transport = port.broker.open();
        let (address, inbox) = transport.inbox().await.unwrap();
        Self {
            transport,
            address,
            inbox,
        }
    }

    async fn ask(&self, id: &'static str) {
        assert_eq!(self.publish(id, None).await, Published::Accepted);
    }

    async fn publish(&self, id: &'static str, dedup_window: Option<Duration>) -> Published {
        let mut envelope = Envelope::new(GetTotal::TYPE, r#"{"order":21}"#);
        envelope.id = id.into();
        envelope.reply_to = Some(self.address.clone());
        let outgoing = Outgoing {
            to: Destination::Queue(Name::new("orders").unwrap(), Part::Lane(0)),
            envelope,
            delay: Duration::ZERO,
            dedup_window,
        };
        let answer = self.transport.publish(vec![outgoing]).await.pop();
        answer.unwrap().unwrap()
    }

    /// Body and correlation id of the next reply.
    async fn reply(&mut self) -> (String, String) {
        let mut batch = Vec::new();
        let receiving = poll_fn(|cx| self.inbox.poll_receive(cx, 1, &mut batch));
        let arrived = tokio::time::timeout(secs(60), receiving).await;
        arrived.expect("a reply").unwrap();
        let envelope = batch.remove(0).envelope;
        let body = String::from_utf8(envelope.body.to_vec()).unwrap();
        (body, envelope.correlation_id.unwrap().to_string())
    }
}

/// Answers twice the number of the order; how often is counted.
fn desk(starts: &Arc<AtomicUsize>) -> Router {
    let starts = Arc::clone(starts);
    Router::new().handle_fn(move |ask: GetTotal, _: Context| {
        starts.fetch_add(1, Ordering::SeqCst);
        std::future::ready(match ask.order {
            21 => Ok(Reply(42)),
            _ => Err(HandlerError::from("no such order")),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_back_is_answered_again_and_not_handled_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.settle_silent, true);
    let first = port.worker(&a, desk(&starts)).await;
    asker.ask("r").await;
    let answer = ("42".to_owned(), "r".to_owned());
    assert_eq!(asker.reply().await, answer);
    // It dies between the reply and the completion of the request.
    let done = |call: &&String| call.starts_with("write Done");
    until("it is marked", || {
        a.faults.calls().iter().filter(done).count() == 2
    })
    .await;
    let calls = a.faults.calls();
    let kept = calls
        .iter()
        .filter(done)
        .all(|call| call.contains("reply: Some"));
    assert!(kept, "completion keeps the answer: {calls:?}");
    a.dies().await;
    let second = port.worker(&b, desk(&starts)).await;
    assert_eq!(asker.reply().await, answer);
    // And a requester that asks again under the same id.
    asker.ask("r").await;
    assert_eq!(asker.reply().await, answer);
    port.quiet().await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_noted_before_it_is_sent() {
    let port = Port::new();
    let a = port.process("a");
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.write_down, true);
    let worker = port.worker(&a, desk(&starts)).await;
    asker.ask("r").await;
    until("it has run", || starts.load(Ordering::SeqCst) == 1).await;
    let early = tokio::time::timeout(secs(5), asker.reply()).await;
    assert!(early.is_err(), "not before it is noted: {early:?}");
    Faults::set(&a.faults.write_down, false);
    assert_eq!(asker.reply().await.0, "42");
    port.quiet().await;
    worker.stop().await;
}

#[test]
fn suppressed_duplicates_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let port = Port::new();
            let a = port.process("a");
            for _ in 0..4 {
                port.publish(&a.client, 1, "m").await;
            }
            let worker = port.plain(&a).await;
            port.quiet().await;
            worker.stop().await;
        });
    });
    let metrics = snapshotter.snapshot().into_vec();
    let count = |wanted: &str| {
        let of = |(key, _, _, value): &(_, _, _, DebugValue)| {
            let key: &metrics_util::CompositeKey = key;
            let labels: Vec<_> = key.key().labels().map(|l| l.value().to_owned()).collect();
            let name = format!("{} {}", key.key().name(), labels.join(" "));
            match value {
                DebugValue::Counter(count) if name == wanted => Some(*count),
                _ => None,
            }
        };
        metrics.iter().find_map(of)
    };
    assert_eq!(count("longshore.duplicates two-step orders"), Some(3));
    let complete = count("longshore.settled.messages two-step orders complete");
    assert_eq!(complete, Some(4), "they are completed like any other");
}

#[tokio::test(start_paused = true)]
async fn a_request_held_since_its_publish_is_answered_again_when_it_comes_back() {
    let port = Port::new();
    let (a, b) = (port.atomic_process("a"), port.atomic_process("b"));
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.settle_silent, true);
    let first = port.worker(&a, desk(&starts)).await;
    let published = asker.publish("r", Some(WINDOW)).await;
    assert_eq!(published, Published::Accepted);
    assert_eq!(asker.reply().await.0, "42");
    assert_eq!(
        a.faults.takes.load(Ordering::SeqCst),
        0,
        "its publish took the id"
    );
    a.dies().await;
    let second = port.worker(&b, desk(&starts)).await;
    assert_eq!(asker.reply().await.0, "42");
    port.quiet().await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    let again = asker.publish("r", Some(WINDOW)).await;
    assert_eq!(again, Published::Duplicate);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_publishing_takes_the_id_a_crash_costs_no_wait_and_a_dead_letter_frees_it() {
    let port = Port::new();
    let (a, b) = (port.atomic_process("a"), port.atomic_process("b"));
    port.publish(&a.client, 1, "m").await;
    let first = port
        .worker(&a, port.router("a", secs(3600), |_| Ok(())))
        .await;
    until("it runs", || port.running.load(Ordering::SeqCst) == 1).await;
    a.dies().await;
    let died = Instant::now();
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let router = port.router("b", Duration::ZERO, move |_| {
        match fails.load(Ordering::SeqCst) {
            true => Err(HandlerError::permanent("never")),
            false => Ok(()),
        }
    });
    let second = port.worker(&b, router).await;
    port.quiet().await;
    assert!(died.elapsed() < secs(1), "{:?}", died.elapsed());
    failing.store(false, Ordering::SeqCst);
    assert_eq!(port.publish(&b.client, 2, "m").await, Published::Accepted);
    port.quiet().await;
    assert_eq!(port.effects(), [("b", 2, 1)]);
    let dead = b.client.dead_letters(&port.queue);
    assert_eq!(dead.redrive_all(|_| ()).await.unwrap().done, 1);
    port.quiet().await;
    assert_eq!(port.effects()[1..], [("b", 1, 1)]);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_through_a_topic_takes_its_id_when_it_is_consumed() {
    let topic = Topic::new("order.placed");
    let port = Port::with(|queue| queue.subscribe_to(&topic));
    let a = port.atomic_process("a");
    let worker = port.plain(&a).await;
    let publish = || a.client.publish(&topic, &Order { id: 1 }).id("m");
    for _ in 0..3 {
        assert_eq!(publish().await.unwrap(), Published::Accepted);
    }
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    let directly = port.publish(&a.client, 1, "m").await;
    assert_eq!(directly, Published::Duplicate, "one window for both");
    worker.stop().await;
}
