//! Which store a client uses, and what it says about one that is not enough.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;
mod two_step;

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, OnceLock},
};

use async_trait::async_trait;
use longshore::{
    Client, Connect, ConnectOptions, Context, Declare, ErrorKind, Limits, Queue, Router, Worker,
};
use longshore_core::{Mark, MarkWrite, Result, Session, StateWrite, Store, Take, Text};
use longshore_memory::{MemoryBroker, MemoryStore};
use queue_under_test::Order;
use tracing_subscriber::{Layer, layer::SubscriberExt};
use two_step::TwoStep;

/// Everything that was logged by anybody in this program.
fn logged() -> &'static Mutex<Vec<String>> {
    static LOGGED: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    LOGGED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Lines);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Mutex::default()
    })
}

struct Lines;

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        logged().lock().unwrap().push(line.0);
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

/// A store that says it is shared.
struct ForAll(MemoryStore);

#[async_trait]
impl Store for ForAll {
    fn shared(&self) -> bool {
        true
    }
    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>> {
        self.0.take(scope, takes).await
    }
    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: std::time::Duration,
    ) -> Result<Vec<bool>> {
        self.0.renew(scope, leases, lease).await
    }
    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()> {
        self.0.write(scope, marks).await
    }
    async fn grant(&self, scope: &Text, token: u64) -> Result<()> {
        self.0.grant(scope, token).await
    }
    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session> {
        self.0.load(scope, key, message).await
    }
    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()> {
        self.0.save(scope, write).await
    }
    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()> {
        self.0.set_aside(scope, key, aside, token).await
    }
}

async fn start(client: &Client, queue: &Queue) {
    let router = Router::new().handle_fn(|_: Order, _: Context| async { Ok(()) });
    let worker = Worker::new(client, queue, router).start().await.unwrap();
    worker.stop().await;
}

fn two_step(options: &ConnectOptions, store: impl Store) -> Client {
    let broker = MemoryBroker::new(options);
    let (transport, _) = TwoStep::over(broker.open(), Arc::new(store));
    Client::new(transport, options, Declare::Create, Limits::default())
}

/// The warnings about this queue.
fn warnings(queue: &str) -> Vec<String> {
    let lines = logged().lock().unwrap();
    let about = format!("queue={queue} ");
    let of = |line: &&String| line.starts_with("WARN") && line.contains(&about);
    lines.iter().filter(of).cloned().collect()
}

#[tokio::test]
async fn a_worker_says_once_that_its_window_is_known_to_one_process() {
    logged();
    let options = ConnectOptions::default();
    let window = std::time::Duration::from_secs(60);
    let store = MemoryStore::new(options.clock.clone());
    start(
        &two_step(&options, store),
        &Queue::new("alone").dedup_window(window),
    )
    .await;
    let said = warnings("alone");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("its dedup window is known to this process alone"),
        "{said:?}"
    );
    assert!(said[0].contains("Connect::store"), "what to do: {said:?}");

    let store = MemoryStore::new(options.clock.clone());
    start(&two_step(&options, store), &Queue::new("windowless")).await;
    let store = ForAll(MemoryStore::new(options.clock.clone()));
    start(
        &two_step(&options, store),
        &Queue::new("shared").dedup_window(window),
    )
    .await;
    let memory = longshore::connect("memory:").await.unwrap();
    start(&memory, &Queue::new("in-memory").dedup_window(window)).await;
    for queue in ["windowless", "shared", "in-memory"] {
        assert_eq!(warnings(queue), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_store_that_is_not_built_or_not_wanted_is_refused_and_shows_no_password() {
    for (url, kind) in [
        ("memory:", ErrorKind::Invalid),
        ("memory:name", ErrorKind::Unsupported),
        ("postgres://user:canary@host", ErrorKind::Unsupported),
        ("user:canary@host", ErrorKind::Unsupported),
        ("", ErrorKind::Unsupported),
    ] {
        let connect = Connect::new("memory:").store(url);
        assert!(!format!("{connect:?}").contains("canary"));
        let error = connect.open().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}");
        assert!(
            !format!("{error:?} {error}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn only_a_queue_with_sessions_has_a_session_to_bring_back_or_to_set_aside() {
    let client = longshore::connect("memory:").await.unwrap();
    let plain = Queue::new("plain");
    let error = client.bring_back_session(&plain, "k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let router = Router::new().handle_fn(|_: Order, _: Context| async { Ok(()) });
        Worker::new(&client, &plain, router).set_aside_sessions()
    }));
    let panic = panic.err().unwrap();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("Queue::sessions"), "{text}");
}
