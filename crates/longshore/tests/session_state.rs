//! The state of sessions: written if the handler succeeds, seen as before by the same message, and
//! refused to an owner that lost its partition.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod two_step;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use longshore::{
    Backoff, Client, ConnectOptions, Context, Declare, ErrorKind, HandlerError, Health, Limits,
    Message, Queue, Reason, Reply, Request, RequestError, Router, Worker, WorkerHandle,
};
use longshore_core::{Part, Store, partition_of};
use longshore_memory::{MemoryBroker, MemoryStore};
use queue_under_test::{Log, Order, until};
use serde::{Deserialize, Serialize};
use two_step::{Faults, TwoStep};

const LEASE: Duration = Duration::from_secs(30);

/// The orders of a session so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen(Vec<u64>);

/// A queue with sessions on a broker of its own.
struct Port {
    options: ConnectOptions,
    broker: MemoryBroker,
    store: Arc<dyn Store>,
    queue: Queue,
    /// Order, attempt, and the state it found.
    found: Log<(u64, u32, Vec<u64>)>,
}

/// What an order does beside adding itself to the state.
type Act = fn(&Context, &Order) -> Result<(), HandlerError>;

impl Port {
    fn new() -> Self {
        let options = ConnectOptions::default();
        Self {
            broker: MemoryBroker::new(&options),
            store: Arc::new(MemoryStore::new(options.clock.clone())),
            queue: Queue::new("orders").sessions(2),
            options,
            found: Log::new(),
        }
    }

    /// A process whose broker keeps no state.
    fn two_step(&self) -> (Client, Arc<Faults>) {
        let (transport, faults) = TwoStep::over(self.broker.open(), Arc::clone(&self.store));
        (self.client(transport), faults)
    }

    /// A process whose broker keeps the state itself.
    fn atomic(&self) -> Client {
        self.client(self.broker.open())
    }

    fn client(&self, transport: Arc<dyn longshore::Transport>) -> Client {
        Client::new(transport, &self.options, Declare::Create, Limits::default())
    }

    fn worker(&self, client: &Client, act: Act) -> Worker {
        let found = self.found.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            let found = found.clone();
            async move {
                let session = cx.session();
                let mut seen: Seen = session.state().await?.unwrap_or_default();
                found.add((order.id, cx.attempt(), seen.0.clone()));
                seen.0.push(order.id);
                session.set_state(&seen)?;
                assert_eq!(
                    session.state().await?,
                    Some(seen),
                    "it sees what it has set"
                );
                act(&cx, &order)
            }
        });
        let quick = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        Worker::new(client, &self.queue, router)
            .lock(LEASE)
            .backoff(quick)
    }

    async fn start(&self, client: &Client, act: Act) -> WorkerHandle {
        self.worker(client, act).start().await.unwrap()
    }

    async fn publish(&self, client: &Client, orders: &[u64]) {
        for id in orders {
            let publish = client.publish(&self.queue, &Order { id: *id });
            publish.key("k").id(format!("m{id}")).await.unwrap();
        }
    }

    async fn quiet(&self) {
        let client = self.atomic();
        let clock = std::time::Instant::now();
        loop {
            let stats = client.stats(&self.queue).await.unwrap();
            let left = stats.ready + stats.in_flight.unwrap() + stats.delayed.unwrap();
            if left == 0 {
                return;
            }
            assert!(
                clock.elapsed() < Duration::from_secs(30),
                "still there: {stats:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn scope(&self) -> longshore::Text {
        let index = partition_of(&"k".into(), 2);
        let name = longshore::Name::new("orders").unwrap();
        longshore_core::Topology::new(name).scope(Part::Partition { index, of: 2 })
    }
}

fn fails_once(cx: &Context, order: &Order) -> Result<(), HandlerError> {
    match (order.id, cx.attempt()) {
        (2, 1) => Err("once".into()),
        _ => Ok(()),
    }
}

fn found_of_fails_once() -> Vec<(u64, u32, Vec<u64>)> {
    vec![
        (1, 1, vec![]),
        (2, 1, vec![1]),
        (2, 2, vec![1]),
        (3, 1, vec![1, 2]),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_state_goes_from_message_to_message_and_a_failed_handler_leaves_it_as_it_was() {
    for atomic in [false, true] {
        let port = Port::new();
        let client = match atomic {
            true => port.atomic(),
            false => port.two_step().0,
        };
        port.publish(&client, &[1, 2, 3]).await;
        let worker = port.start(&client, fails_once).await;
        port.quiet().await;
        assert_eq!(port.found.all(), found_of_fails_once(), "atomic: {atomic}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_after_its_state_was_written_sees_what_was_before() {
    let port = Port::new();
    let (a, faults) = port.two_step();
    let (b, _) = port.two_step();
    port.publish(&a, &[1]).await;
    let first = port.start(&a, |_, _| Ok(())).await;
    port.quiet().await;
    Faults::set(&faults.settle_silent, true);
    port.publish(&a, &[2]).await;
    let saves = || faults.calls().iter().filter(|call| *call == "save").count();
    until("it is saved", || saves() == 2).await;
    Faults::set(&faults.dead, true);
    a.close().await;
    let second = port.start(&b, |_, _| Ok(())).await;
    port.publish(&b, &[3]).await;
    port.quiet().await;
    let found = port.found.all();
    assert_eq!(found[1], (2, 1, vec![1]));
    assert_eq!((found[2].0, &found[2].2), (2, &vec![1]), "{found:?}");
    assert_eq!(found[3], (3, 1, vec![1, 2]));
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_refused_for_its_token_leaves_the_message_unsettled() {
    let mut port = Port::new();
    port.queue = port.queue.dedup_window(Duration::from_secs(60));
    let (a, faults) = port.two_step();
    let worker = port.start(&a, |_, _| Ok(())).await;
    port.publish(&a, &[1]).await;
    port.quiet().await;
    assert!(
        faults.calls().iter().any(|call| call.starts_with("grant")),
        "told of its token first"
    );
    // As if another had been granted it, and this one did not know yet.
    port.store.grant(&port.scope(), u64::MAX).await.unwrap();
    port.publish(&a, &[2]).await;
    until("refused", || {
        faults.calls().iter().filter(|call| *call == "save").count() == 2
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let settled = faults
        .calls()
        .iter()
        .filter(|call| call.starts_with("settle Complete"))
        .count();
    assert_eq!(settled, 1, "{:?}", faults.calls());
    let done = |call: &&String| call.starts_with("write Done");
    assert_eq!(
        faults.calls().iter().filter(done).count(),
        1,
        "it runs again elsewhere"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_costs_no_attempt_once_states_are_in_use() {
    let port = Port::new();
    let (a, faults) = port.two_step();
    let worker = port.start(&a, |_, _| Ok(())).await;
    port.publish(&a, &[1]).await;
    port.quiet().await;
    Faults::set(&faults.store_down, true);
    port.publish(&a, &[2]).await;
    until("not ready", || worker.health() != Health::Ready).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(port.found.len(), 1);
    Faults::set(&faults.store_down, false);
    port.quiet().await;
    assert_eq!(port.found.all()[1], (2, 1, vec![1]));
    assert_eq!(worker.health(), Health::Ready);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_state_are_told() {
    let told = Log::new();
    let log = told.clone();
    let (leaked, leak) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().handle_fn(move |_: Order, cx: Context| {
        let (log, leaked) = (log.clone(), leaked.clone());
        async move {
            let session = cx.session();
            let kind = |result: Result<(), longshore::Error>| result.err().map(|e| e.kind());
            log.add(kind(session.set_state(&"x".repeat(256 * 1024))));
            log.add(kind(session.set_state(&"x".repeat(256 * 1024 - 2))));
            log.add(kind(session.state::<u64>().await.map(drop)));
            log.add(kind(session.clear_state()));
            log.add(kind(session.state::<u64>().await.map(drop)));
            let _ = leaked.send(cx);
            Ok(())
        }
    });
    let invalid = Some(ErrorKind::Invalid);
    let port = Port::new();
    let client = port.atomic();
    let worker = Worker::new(&client, &port.queue, router.clone())
        .start()
        .await
        .unwrap();
    port.publish(&client, &[1]).await;
    port.quiet().await;
    assert_eq!(told.all(), [invalid, None, invalid, None, None]);
    worker.stop().await;
    let mut leak = leak;
    let cx = leak.recv().await.unwrap();
    let late = cx.session().set_state(&1).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
    assert_eq!(cx.session().key(), "k");
    assert!(cx.session().token() > 0);

    let plain = Queue::new("plain");
    let worker = Worker::new(&client, &plain, router).start().await.unwrap();
    client
        .publish(&plain, &Order { id: 1 })
        .key("k")
        .await
        .unwrap();
    let cx = leak.recv().await.unwrap();
    assert_eq!(told.all()[5..], [Some(ErrorKind::Unsupported); 5]);
    assert_eq!((cx.session().key(), cx.session().token()), ("", 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_set_aside_becomes_dead_letters_until_it_is_brought_back() {
    for atomic in [false, true] {
        let port = Port::new();
        let client = match atomic {
            true => port.atomic(),
            false => port.two_step().0,
        };
        let poison: Act = |_, order| match order.id {
            2 => Err(HandlerError::permanent("never")),
            _ => Ok(()),
        };
        let worker = port.worker(&client, poison).set_aside_sessions();
        let worker = worker.start().await.unwrap();
        port.publish(&client, &[1, 2, 3]).await;
        let other = client.publish(&port.queue, &Order { id: 9 }).key("other");
        other.await.unwrap();
        port.quiet().await;
        let started = || {
            port.found
                .all()
                .iter()
                .map(|found| found.0)
                .collect::<Vec<_>>()
        };
        let mut orders = started();
        orders.sort_unstable();
        assert_eq!(orders, [1, 2, 9], "atomic: {atomic}");
        let dead = client.dead_letters(&port.queue);
        let letters = dead.list(None, 10).await.unwrap();
        let mut reasons: Vec<_> = letters
            .iter()
            .map(|l| (l.attempts, l.reason.clone()))
            .collect();
        reasons.sort();
        assert_eq!(
            reasons,
            [(0, Reason::SessionSetAside), (1, Reason::Permanent)]
        );

        client.bring_back_session(&port.queue, "k").await.unwrap();
        port.publish(&client, &[4]).await;
        port.quiet().await;
        assert_eq!(started().last(), Some(&4));
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_that_policy_the_next_message_of_the_session_runs() {
    let port = Port::new();
    let (client, faults) = port.two_step();
    let poison: Act = |_, order| match order.id {
        1 => Err(HandlerError::permanent("never")),
        _ => Ok(()),
    };
    let worker = port.start(&client, poison).await;
    port.publish(&client, &[1, 2]).await;
    port.quiet().await;
    assert_eq!(port.found.all(), [(1, 1, vec![]), (2, 1, vec![])]);
    assert!(
        !faults
            .calls()
            .iter()
            .any(|call| call.starts_with("set aside"))
    );
    assert_eq!(faults.takes.load(Ordering::SeqCst), 0);
    worker.stop().await;
}

#[derive(Debug, Serialize, Deserialize)]
struct Withdraw {
    cents: u64,
}

impl Message for Withdraw {
    const TYPE: &'static str = "withdraw";
}

impl Request for Withdraw {
    type Reply = u64;
}

#[derive(Debug, Serialize, Deserialize)]
struct TooMuch;

impl Message for TooMuch {
    const TYPE: &'static str = "too.much";
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_raises_a_fault_leaves_the_state_as_it_was() {
    let port = Port::new();
    let (client, _) = port.two_step();
    let router = Router::new().handle_fn(|ask: Withdraw, cx: Context| async move {
        let session = cx.session();
        let balance: u64 = session.state().await?.unwrap_or(100);
        session.set_state(&balance.saturating_sub(ask.cents))?;
        match ask.cents > balance {
            true => Err(HandlerError::fault(&TooMuch)),
            false => Ok(Reply(balance - ask.cents)),
        }
    });
    let worker = Worker::new(&client, &port.queue, router)
        .start()
        .await
        .unwrap();
    let ask = async |cents| {
        let ask = client.request(&port.queue, &Withdraw { cents });
        ask.key("k").await
    };
    assert_eq!(ask(70).await.unwrap(), 30);
    assert!(matches!(ask(70).await, Err(RequestError::Fault(_))));
    assert_eq!(ask(30).await.unwrap(), 0);
    worker.stop().await;
}
