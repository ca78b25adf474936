//! What all processes of a run must agree on.

use std::{fs, io, path::Path, time::Duration};

use longshore::{Backoff, Client, Connect, Queue, Result};
use serde::{Deserialize, Serialize};

/// The file all processes of a run read it from.
const FILE: &str = "plan.json";
/// The file all of them write what happens to.
pub(crate) const HISTORY: &str = "history.jsonl";
/// Where the effect ledger listens. In the folder of the run, which is where its processes work: the
/// path of a socket is short.
pub(crate) const LEDGER: &str = "ledger.sock";

/// Which broker is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum On {
    /// RabbitMQ.
    Amqp,
    /// Redis.
    Redis,
    /// None: the transport inside the process.
    Memory,
}

impl On {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[Self::Amqp, Self::Redis, Self::Memory];
    /// Those that are processes of their own.
    pub(crate) const SERVERS: &[Self] = &[Self::Amqp, Self::Redis];

    /// Its name, as the command line has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Redis => "redis",
            Self::Memory => "memory",
        }
    }
}

/// What all processes of a run must agree on. Everything a message is follows from this and its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// For how many seconds faults are struck.
    pub(crate) seconds: u64,
    /// The broker.
    pub(crate) on: On,
    /// Where clients connect: to the proxy before the broker.
    pub(crate) url: String,
    /// Where they find the store, where the broker is none: a proxy too.
    pub(crate) store: Option<String>,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// How many publishers there are.
    pub(crate) publishers: usize,
    /// How much is published.
    pub(crate) load: Load,
    /// How often handlers do anything but succeed.
    pub(crate) fates: Fates,
    /// How long a handler takes, in milliseconds.
    pub(crate) busy: (u64, u64),
    /// How many of a thousand messages take so many milliseconds instead.
    pub(crate) slow: (u64, u64),
    /// Whether these block the thread they run on.
    pub(crate) blocks: bool,
    /// How many bytes of padding a message has at most.
    pub(crate) padding: u64,
    /// How many of a thousand messages have how many bytes of padding instead.
    pub(crate) bulk: (u64, u64),
    /// How many bytes an error says.
    pub(crate) complaint: u64,
    /// How often a handler may start for a message.
    pub(crate) max_attempts: u32,
    /// How long a lock lasts.
    pub(crate) lock: Duration,
    /// How long a handler may take.
    pub(crate) time_limit: Duration,
    /// How long a worker may take to stop.
    pub(crate) stop_deadline: Duration,
    /// How many handlers of one queue run in one process.
    pub(crate) concurrency: usize,
    /// How many messages of one lane wait in one process.
    pub(crate) prefetch: u16,
    /// How long an id is known.
    pub(crate) window: Duration,
    /// Whether the queue with sessions has a dedup window too.
    pub(crate) known_in_sessions: bool,
    /// How much memory a process may have resident, in bytes.
    pub(crate) memory: u64,
}

/// How many messages are published a second, over all publishers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Without sessions, in two lanes; a fifth of them delayed by up to 5 s.
    pub(crate) plain: u64,
    /// In sessions.
    pub(crate) sessions: u64,
    /// Ids, each published two or three times.
    pub(crate) dedup: u64,
    /// Requests.
    pub(crate) requests: u64,
    /// By a plain client that knows no partitions, in sessions of its own.
    pub(crate) strange: u64,
}

/// How many of a thousand messages do anything but succeed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Fates {
    /// Fail up to three times, then succeed.
    pub(crate) fail: u64,
    /// Always fail.
    pub(crate) always: u64,
    /// Are refused at once.
    pub(crate) refuse: u64,
    /// Panic.
    pub(crate) panic: u64,
    /// Never return.
    pub(crate) hang: u64,
    /// Take their process with them.
    pub(crate) abort: u64,
    /// Reach no handler.
    pub(crate) unprocessable: u64,
}

impl Plan {
    /// Partitions of the queue with sessions.
    pub(crate) const PARTITIONS: u16 = 16;
    /// Sessions.
    pub(crate) const KEYS: u64 = 200;
    /// Tasks that publish to one queue, over all publishers. Each has sessions of its own.
    pub(crate) const TASKS: u64 = 10;

    /// The plan of a quiet day.
    pub(crate) fn new(seed: u64, on: On, seconds: u64, workers: usize) -> Self {
        Self {
            seed,
            seconds,
            on,
            url: String::new(),
            store: None,
            workers,
            publishers: 2,
            load: Load {
                plain: 100,
                sessions: 200,
                dedup: 60,
                requests: 30,
                strange: 20,
            },
            fates: Fates {
                fail: 30,
                always: 4,
                refuse: 4,
                panic: 4,
                hang: 2,
                abort: 0,
                unprocessable: 4,
            },
            busy: (1, 20),
            slow: (0, 0),
            blocks: false,
            padding: 1_000,
            bulk: (10, 20_000),
            complaint: 100,
            max_attempts: 5,
            lock: Duration::from_secs(2),
            time_limit: Duration::from_secs(3),
            stop_deadline: Duration::from_secs(2),
            concurrency: 32,
            prefetch: 64,
            window: Duration::from_secs(600),
            known_in_sessions: seed.is_multiple_of(2),
            memory: 256 << 20,
        }
    }

    /// Whether this message of a task is published in the first half of the run: only then may it
    /// hang, because all its attempts take their time and everybody waits for them at the end.
    pub(crate) fn is_early(&self, kind: Kind, count: u64) -> bool {
        let rate = match kind {
            Kind::Plain => self.load.plain,
            Kind::Sessions => self.load.sessions,
            Kind::Dedup => self.load.dedup,
            Kind::Requests => self.load.requests,
        };
        count * Self::TASKS < rate * self.seconds / 2
    }

    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(FILE), serde_json::to_vec_pretty(self)?)
    }

    /// Reads it from the folder of a run.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(FILE))?)?)
    }

    /// How often a failed message is tried again.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(10), Duration::from_millis(200))
    }

    /// Connects to a broker and a store of this plan, so that whatever goes wrong is noticed soon.
    ///
    /// # Errors
    /// As [`Connect::open`].
    pub(crate) async fn connect(
        &self,
        name: &str,
        url: &str,
        store: Option<&str>,
    ) -> Result<Client> {
        let connect = Connect::new(url)
            .name(name)
            .heartbeat(Duration::from_secs(2))
            .connect_timeout(Duration::from_secs(2))
            .confirm_timeout(Duration::from_secs(3));
        match store {
            Some(store) => connect.store(store).open().await,
            None => connect.open().await,
        }
    }
}

/// One of the queues of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Two lanes, delays; its handlers publish on into the dedup queue.
    Plain,
    /// Sessions with state.
    Sessions,
    /// A dedup window.
    Dedup,
    /// Requests, each with a reply.
    Requests,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[Self::Plain, Self::Sessions, Self::Dedup, Self::Requests];

    /// The name of its queue.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sessions => "sessions",
            Self::Dedup => "dedup",
            Self::Requests => "requests",
        }
    }

    /// Its queue.
    pub(crate) fn queue(self, plan: &Plan) -> Queue {
        let queue = Queue::new(self.name());
        match self {
            Self::Plain => queue.lanes(["high", "normal"]),
            Self::Sessions if plan.known_in_sessions => {
                queue.sessions(Plan::PARTITIONS).dedup_window(plan.window)
            }
            Self::Sessions => queue.sessions(Plan::PARTITIONS),
            Self::Dedup => queue.dedup_window(plan.window),
            Self::Requests => queue,
        }
    }
}
