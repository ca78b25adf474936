//! Whatever is waited for can be dropped at any of its waits: nothing is lost by it, nothing happens
//! twice, and the next call gets its own answer. For k = 0, 1, 2, … a future is polled k times and
//! dropped, until k polls are enough to end it.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    future::{Future, IntoFuture, poll_fn},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use longshore::{
    Backoff, Client, ConnectOptions, Context, Declare, Draft, Limits, Message, Name, Published,
    Queue, Reply, Request, Router, SeededIds, Worker, WorkerHandle,
};
use longshore_core::{
    Destination, Envelope, ErrorKind, Outgoing, Part, Receipt, Settlement, Source, Subscription,
    Topology, Transport,
};
use longshore_memory::MemoryBroker;
use longshore_testing::faulty::{Fault, Faulty, Plan};
use serde::{Deserialize, Serialize};

/// Each of them is late at other places.
const SEEDS: std::ops::Range<u64> = 0..12;
/// No future here waits as often as that.
const MOST_POLLS: usize = 500;

#[derive(Serialize, Deserialize)]
struct Job(u64);

impl Message for Job {
    const TYPE: &'static str = "job";
}

#[derive(Serialize, Deserialize)]
struct Ask(u64);

impl Message for Ask {
    const TYPE: &'static str = "ask";
}

impl Request for Ask {
    type Reply = u64;
}

/// A broker on which everything is late, and what was handled of what is there.
struct Scene {
    broker: MemoryBroker,
    options: ConnectOptions,
    client: Client,
    transport: Arc<dyn Transport>,
    queue: Queue,
    handled: Arc<Mutex<BTreeMap<u64, u32>>>,
}

impl Scene {
    fn new(seed: u64, queue: Queue) -> Self {
        let mut options = ConnectOptions::default();
        options.ids = Arc::new(SeededIds::new(seed));
        let broker = MemoryBroker::new(&options);
        let (transport, faults) = Faulty::over(broker.open(), seed).open();
        let late = [
            Fault::ConfirmLate,
            Fault::SettleLate,
            Fault::StoreLate,
            Fault::DeliveryLate,
        ];
        let late = late
            .iter()
            .fold(Plan::calm(), |plan, fault| plan.with(*fault, 800));
        faults.set(late.late(Duration::from_millis(1), Duration::from_millis(20)));
        let (declare, limits) = (Declare::Create, Limits::default());
        Self {
            client: Client::new(Arc::clone(&transport), &options, declare, limits),
            transport,
            broker,
            options,
            queue,
            handled: Arc::default(),
        }
    }

    fn worker(&self, takes: Duration) -> Worker {
        let handled = Arc::clone(&self.handled);
        let router = Router::new()
            .handle_fn(move |job: Job, _: Context| {
                let handled = Arc::clone(&handled);
                async move {
                    tokio::time::sleep(takes).await;
                    *handled.lock().unwrap().entry(job.0).or_default() += 1;
                    Ok(())
                }
            })
            .handle_fn(|ask: Ask, _: Context| async move { Ok(Reply(ask.0 * 2)) });
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        Worker::new(&self.client, &self.queue, router)
            .backoff(backoff)
            .stop_deadline(Duration::from_secs(2))
    }

    async fn start(&self) -> WorkerHandle {
        self.worker(Duration::ZERO).start().await.unwrap()
    }

    /// What was handled, once nothing is left.
    async fn all_handled(&self) -> BTreeMap<u64, u32> {
        let (declare, limits) = (Declare::Create, Limits::default());
        let observer = Client::new(self.broker.open(), &self.options, declare, limits);
        for _ in 0..10_000 {
            // What is late is there by then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let stats = observer.stats(&self.queue).await.unwrap();
            if stats.ready + stats.in_flight.unwrap() + stats.delayed.unwrap() == 0 {
                assert_eq!(stats.dead, 0);
                return self.handled.lock().unwrap().clone();
            }
        }
        panic!("something is never handled");
    }
}

/// Polls a future so often, and drops it then.
async fn polled<F: IntoFuture>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future.into_future());
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs a case for every number of polls up to the one that lets it end. `case` answers whether the
/// future has ended.
async fn exhaust<F: Future<Output = bool>>(what: &str, case: impl Fn(u64, usize) -> F) {
    let mut most = 0;
    for seed in SEEDS {
        let mut polls = 0;
        while !case(seed, polls).await {
            polls += 1;
            assert!(polls < MOST_POLLS, "{what} never ends");
        }
        most = most.max(polls);
    }
    assert!(most > 1, "{what} never waited, so nothing was tried");
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_dropped_is_stored_once_or_not_at_all() {
    exhaust("a publish", |seed, polls| async move {
        let scene = Scene::new(seed, Queue::new("orders"));
        let publish = |number| scene.client.publish(&scene.queue, &Job(number));
        let first = polled(polls, publish(1)).await;
        assert_eq!(publish(2).await.unwrap(), Published::Accepted);
        let worker = scene.start().await;
        let handled = scene.all_handled().await;
        worker.stop().await;
        let times = handled.get(&1).copied().unwrap_or(0);
        match &first {
            Some(answer) => {
                answer.as_ref().unwrap();
                assert_eq!(times, 1, "seed {seed}, {polls} polls");
            }
            None if polls == 0 => assert_eq!(times, 0),
            None => assert!(times <= 1, "seed {seed}, {polls} polls: {times}"),
        }
        assert_eq!(handled.get(&2), Some(&1), "seed {seed}, {polls} polls");
        first.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_stores_each_once_or_not_at_all() {
    exhaust("a batch", |seed, polls| async move {
        let scene = Scene::new(seed, Queue::new("orders"));
        let batch = |numbers: std::ops::Range<u64>| {
            let drafts: Vec<Draft> = numbers.map(|number| Draft::new(&Job(number))).collect();
            scene.client.publish_all(&scene.queue, drafts)
        };
        let first = polled(polls, batch(0..5)).await;
        let second = batch(10..13).await;
        assert_eq!(second.len(), 3, "its own answers, and no other");
        assert!(second.iter().all(Result::is_ok), "{second:?}");
        let worker = scene.start().await;
        let handled = scene.all_handled().await;
        worker.stop().await;
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        assert!((10..13).all(|number| handled.contains_key(&number)));
        if first.is_some() {
            assert_eq!(handled.len(), 8, "seed {seed}, {polls} polls");
        }
        first.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_request_gets_its_own_reply() {
    exhaust("a request", |seed, polls| async move {
        let scene = Scene::new(seed, Queue::new("asks"));
        let worker = scene.start().await;
        let ask = |number| scene.client.request(&scene.queue, &Ask(number));
        let first = polled(polls, ask(100)).await;
        for number in [7, 8] {
            let reply = ask(number).await.unwrap();
            assert_eq!(reply, number * 2, "seed {seed}, {polls} polls");
        }
        if let Some(first) = &first {
            assert_eq!(*first.as_ref().unwrap(), 200);
        }
        scene.all_handled().await;
        worker.stop().await;
        first.is_some()
    })
    .await;
}

/// With lanes, with sessions, and with a dedup window: what stops is not the same.
#[tokio::test(start_paused = true)]
async fn a_stop_that_is_not_waited_for_loses_nothing() {
    let queues = [
        Queue::new("orders"),
        Queue::new("orders").lanes(["high", "normal"]),
        Queue::new("orders").sessions(4),
        Queue::new("orders").dedup_window(Duration::from_secs(60)),
    ];
    for queue in queues {
        exhaust("a stop", |seed, polls| {
            let queue = queue.clone();
            async move {
                let scene = Scene::new(seed, queue);
                let takes = Duration::from_millis(30);
                let worker = scene.worker(takes).concurrency(2).start().await.unwrap();
                let draft = |number| Draft::new(&Job(number)).key(format!("key-{}", number % 3));
                let answers = scene.client.publish_all(&scene.queue, (0..12).map(draft));
                for answer in answers.await {
                    answer.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(40 + seed * 5)).await;
                let stopped = polled(polls, worker.stop()).await;
                let next = scene.worker(takes).start().await.unwrap();
                let handled = scene.all_handled().await;
                next.stop().await;
                let once: BTreeMap<u64, u32> = (0..12).map(|number| (number, 1)).collect();
                assert_eq!(handled, once, "seed {seed}, {polls} polls");
                stopped.is_some()
            }
        })
        .await;
    }
}

/// The parts of a transport that a worker uses, without the worker between.
struct Raw {
    scene: Scene,
    topology: Arc<Topology>,
}

impl Raw {
    async fn new(seed: u64) -> Self {
        let scene = Scene::new(seed, Queue::new("orders"));
        let topology = Arc::new(Topology::new(Name::new("orders").unwrap()));
        scene.client.declare(&scene.queue).await.unwrap();
        for number in 0..6_u8 {
            let out = Outgoing {
                to: Destination::Queue(topology.queue.clone(), Part::Lane(0)),
                envelope: Envelope::new("job", vec![b'0' + number]),
                delay: Duration::ZERO,
                dedup_window: None,
            };
            let answers = scene.transport.publish(vec![out]).await;
            assert!(answers.iter().all(Result::is_ok));
        }
        Self { scene, topology }
    }

    fn subscription(&self) -> Subscription {
        Subscription {
            topology: Arc::clone(&self.topology),
            declare: Declare::Create,
            part: Part::Lane(0),
            ownership: None,
            prefetch: 16,
            lock: Duration::from_secs(30),
            suspect_returns: 2,
            limits: Limits::default(),
        }
    }
}

async fn receive(source: &mut dyn Source, into: &mut Vec<longshore_core::Delivery>) {
    let received = poll_fn(|cx| source.poll_receive(cx, 2, into)).await;
    assert!(received.unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_dropped_is_whole_or_nothing() {
    exhaust("a settlement", |seed, polls| async move {
        let raw = Raw::new(seed).await;
        let transport = &raw.scene.transport;
        let (mut source, settler) = transport.subscribe(raw.subscription()).await.unwrap();
        let mut taken = Vec::new();
        while taken.len() < 6 {
            receive(source.as_mut(), &mut taken).await;
        }
        let locks: Vec<Receipt> = taken.iter().map(|delivery| delivery.receipt).collect();
        let complete = |of: &[Receipt]| -> Vec<Settlement> {
            of.iter()
                .map(|lock| Settlement::complete(*lock, 1))
                .collect()
        };
        let first = polled(polls, settler.settle(complete(&locks[..3]))).await;
        let second = settler.settle(complete(&locks[3..5])).await;
        assert_eq!(second.len(), 2, "its own answers, and no other");
        second.into_iter().for_each(|answer| answer.unwrap());
        // Whatever was on its way has arrived by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = settler.settle(complete(&locks[..3])).await;
        for answer in again {
            match answer {
                Ok(()) => assert!(first.is_none(), "it was settled before"),
                Err(unsettled) => assert_eq!(unsettled.error.kind(), ErrorKind::Stale),
            }
        }
        drop(source);
        let stats = raw.scene.client.stats(&raw.scene.queue).await.unwrap();
        assert_eq!((stats.ready, stats.in_flight), (1, Some(0)), "seed {seed}");
        first.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_dropped_takes_nothing_away() {
    exhaust("a receive", |seed, polls| async move {
        let raw = Raw::new(seed).await;
        let transport = &raw.scene.transport;
        let (mut source, _settler) = transport.subscribe(raw.subscription()).await.unwrap();
        let mut taken = Vec::new();
        let first = polled(polls, receive(source.as_mut(), &mut taken)).await;
        while taken.len() < 6 {
            receive(source.as_mut(), &mut taken).await;
        }
        let bodies: Vec<u8> = taken
            .iter()
            .map(|delivery| delivery.envelope.body[0])
            .collect();
        assert_eq!(bodies, *b"012345", "seed {seed}, {polls} polls");
        first.is_some()
    })
    .await;
}
