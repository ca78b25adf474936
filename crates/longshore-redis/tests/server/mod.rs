//! A private Redis for one test, and a consumer to drive a source with.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    future::poll_fn,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use longshore_core::{
    ConnectOptions, Declare, Delivery, Destination, Envelope, Limits, Name, Outgoing, Part,
    Receipt, Result, Settlement, Settler, Source, Subscription, Topology, Transport, Verdict,
};

/// A `redis-server` process with an empty folder of its own.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    pub folder: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("longshore-redis-{port}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let mut server = Self {
            child: None,
            port,
            folder,
            arguments,
        };
        server.run();
        server
    }

    /// Starts the process (again) and waits until it answers.
    pub fn run(&mut self) {
        let program = std::env::var("LONGSHORE_REDIS_SERVER").unwrap_or("redis-server".into());
        let mut words = program.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["--port", &self.port.to_string(), "--dir"])
            .arg(&self.folder);
        command.args([
            "--appendonly",
            "yes",
            "--save",
            "",
            "--enable-debug-command",
            "yes",
        ]);
        command
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        wait_until("the server answers", || {
            self.try_query::<String>(redis::cmd("PING")).is_ok()
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn try_query<T: redis::FromRedisValue>(
        &self,
        command: redis::Cmd,
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        command.query(&mut connection)
    }

    /// One command of a plain client, words separated by spaces.
    pub fn query<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        self.try_query(command).unwrap()
    }

    pub async fn connect(&self) -> Arc<dyn Transport> {
        self.connect_with(options()).await
    }

    pub async fn connect_with(&self, options: ConnectOptions) -> Arc<dyn Transport> {
        longshore_redis::connect(&self.url(), options)
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn options() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.name = "test".into();
    options
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn queue(name: &str) -> Name {
    Name::new(name).unwrap()
}

pub fn subscription(name: &str, prefetch: u16, lock: Duration) -> Subscription {
    Subscription {
        topology: Arc::new(Topology::new(queue(name))),
        declare: Declare::Create,
        part: Part::Lane(0),
        ownership: None,
        prefetch,
        lock,
        suspect_returns: 2,
        limits: Limits::default(),
    }
}

pub fn message(name: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let mut envelope = Envelope::new("test", body.into());
    envelope.id = "id".into();
    Outgoing {
        to: Destination::Queue(queue(name), Part::Lane(0)),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

pub async fn publish(
    transport: &Arc<dyn Transport>,
    name: &str,
    bodies: impl IntoIterator<Item = String>,
) {
    let batch = bodies.into_iter().map(|body| message(name, body)).collect();
    for answer in transport.publish(batch).await {
        answer.unwrap();
    }
}

/// Both ends of a subscription.
pub struct Consumer {
    pub source: Box<dyn Source>,
    pub settler: Arc<dyn Settler>,
}

impl Consumer {
    pub async fn new(transport: &Arc<dyn Transport>, subscription: Subscription) -> Self {
        let (source, settler) = transport.subscribe(subscription).await.unwrap();
        Self { source, settler }
    }

    /// What arrives within `within`, until there are `count`.
    pub async fn receive_within(&mut self, count: usize, within: Duration) -> Vec<Delivery> {
        let mut got = Vec::new();
        let deadline = tokio::time::Instant::now() + within;
        while got.len() < count {
            let more = poll_fn(|cx| self.source.poll_receive(cx, count - got.len(), &mut got));
            match tokio::time::timeout_at(deadline, more).await {
                Ok(Ok(0)) | Err(_) => break,
                Ok(more) => more.unwrap(),
            };
        }
        got
    }

    /// Exactly so many.
    pub async fn receive(&mut self, count: usize) -> Vec<Delivery> {
        let got = self.receive_within(count, Duration::from_secs(20)).await;
        assert_eq!(got.len(), count, "trouble: {:?}", self.source.trouble());
        got
    }

    pub async fn one(&mut self) -> Delivery {
        self.receive(1).await.pop().unwrap()
    }

    pub async fn settle(&self, delivery: Delivery, verdict: Verdict) -> Result<()> {
        let settlement = Settlement::new(
            delivery.receipt,
            delivery.attempt,
            verdict,
            delivery.envelope,
        );
        self.settler
            .settle(vec![settlement])
            .await
            .pop()
            .unwrap()
            .map_err(|refused| refused.error)
    }

    pub async fn complete(&self, deliveries: Vec<Delivery>) -> Vec<Result<()>> {
        let batch = deliveries
            .iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt))
            .collect();
        let answers = self.settler.settle(batch).await;
        answers
            .into_iter()
            .map(|a| a.map_err(|refused| refused.error))
            .collect()
    }

    pub async fn lost_within(&mut self, within: Duration) -> Vec<Receipt> {
        let mut lost = Vec::new();
        let poll = poll_fn(|cx| match self.source.poll_lost(cx, &mut lost) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        });
        let _ = tokio::time::timeout(within, poll).await;
        lost
    }
}

pub fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.envelope.body.to_vec()).unwrap()
}
