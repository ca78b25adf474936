//! From a URL to a client.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Clock, ConnectOptions, Declare, Error, ErrorKind, Ids, Limits, Result, Store, Transport,
};

use crate::{Client, store};

/// Connects with the defaults; see [`Connect`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), longshore::Error> {
/// let client = longshore::connect("memory:").await?;
/// # client.close().await; Ok(()) }
/// ```
///
/// # Errors
/// See [`Connect::open`].
pub async fn connect(url: &str) -> Result<Client> {
    Connect::new(url).open().await
}

/// How to connect. The scheme of the URL picks the transport:
///
/// | URL | broker |
/// |---|---|
/// | `memory:` or `memory:name` | inside this process; a name is shared by its clients |
/// | `amqp://user:password@host:5672,other:5672/vhost`, `amqps://…` | RabbitMQ (feature `amqp`) |
/// | `redis://:password@host:6379/0`, `rediss://…` | Redis or Valkey (feature `redis`) |
/// | `redis+cluster://host:7000,other:7000`, `rediss+cluster://…` | Redis Cluster |
/// | `redis+sentinel://host:26379,other:26379/master-name/0`, `rediss+sentinel://…` | Redis behind Sentinel |
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is opened"]
pub struct Connect {
    url: Url,
    store: Option<Url>,
    options: ConnectOptions,
    declare: Declare,
    limits: Limits,
}

/// A URL that does not show itself: it may hold a password.
#[derive(Clone)]
struct Url(String);

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}:…\"", shown(&self.0))
    }
}

impl Connect {
    /// Connects to this URL once [`open`](Self::open) is called.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Url(url.into()),
            store: None,
            options: ConnectOptions::default(),
            declare: Declare::Create,
            limits: Limits::default(),
        }
    }

    /// The name of the connection in the broker's tools. Default: the program's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Declares nothing: queues and topics must exist as they would be declared.
    pub fn read_only(mut self) -> Self {
        self.declare = Declare::Verify;
        self
    }

    /// The largest body sent or handled, in bytes. Default 1 MiB.
    ///
    /// # Panics
    /// When zero or above 16 MiB.
    #[track_caller]
    pub fn max_body(mut self, bytes: usize) -> Self {
        assert!(
            (1..=Limits::HARD_BODY).contains(&bytes),
            "a body limit lies between 1 byte and 16 MiB; got {bytes}"
        );
        self.limits.body = bytes;
        self
    }

    /// Time to reach a broker. Default 5 s.
    ///
    /// # Panics
    /// When zero or above 5 minutes.
    #[track_caller]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.options.connect_timeout = checked("a connection time-out", time);
        self
    }

    /// Time for a broker to confirm a publish or settlement before it counts as unknown. Default 10 s.
    ///
    /// # Panics
    /// When zero or above 5 minutes.
    #[track_caller]
    pub fn confirm_timeout(mut self, time: Duration) -> Self {
        self.options.confirm_timeout = checked("a confirmation time-out", time);
        self
    }

    /// How often an idle connection shows that it is alive; a peer silent for two is given up. Default 5 s.
    ///
    /// # Panics
    /// When zero or above 5 minutes.
    #[track_caller]
    pub fn heartbeat(mut self, time: Duration) -> Self {
        self.options.heartbeat = checked("a heartbeat", time);
        self
    }

    /// Certificate authorities to trust, PEM, instead of the system's. Chain and host name are
    /// always verified.
    pub fn certificate_authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.options.certificate_authorities = Some(pem.into());
        self
    }

    /// Allows credentials over an unencrypted connection to another machine: one of the URL, or one
    /// that a sentinel or a Redis Cluster names.
    pub fn allow_plaintext(mut self) -> Self {
        self.options.allow_plaintext = true;
        self
    }

    /// RabbitMQ before 3.12: the `consumer_timeout` its operator has set, where not 30 minutes.
    pub fn consumer_timeout(mut self, time: Duration) -> Self {
        self.options.consumer_timeout = Some(time);
        self
    }

    /// Redis: the first part of every key. Default `ls`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.key_prefix = prefix.into();
        self
    }

    /// RabbitMQ: requests may ask for their replies in queues whose names begin with this, beside
    /// those the broker names. Whoever can publish requests can have replies written there.
    ///
    /// # Panics
    /// When empty: replies could go anywhere.
    #[track_caller]
    pub fn reply_prefix(mut self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        assert!(!prefix.is_empty(), "a prefix of reply queues is not empty");
        self.options.reply_prefix = Some(prefix);
        self
    }

    /// Where dedup marks and the state of sessions live, for transports that do not keep them
    /// themselves (RabbitMQ). `redis://…` and its kin (feature `redis`) are shared by all processes;
    /// `memory:`, the default, is known to this process alone: a worker whose queue needs more says
    /// so in its log when it starts.
    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = Some(Url(url.into()));
        self
    }

    /// Where time and ids come from, for tests that hold them.
    pub fn seams(mut self, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        self.options.clock = clock;
        self.options.ids = ids;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// `Invalid` for a URL that cannot be read and for a store beside a transport that keeps marks
    /// and state itself, `Unsupported` for a scheme without a transport or store in this build, `Denied` for credentials or certificates, `Unavailable` when no host answers in
    /// time. No error shows the password.
    pub async fn open(self) -> Result<Client> {
        let transport = transport(&self.url.0, self.options.clone()).await?;
        let keeps_itself = transport.store().is_some();
        let client = Client::new(transport, &self.options, self.declare, self.limits);
        if self.store.is_none() && keeps_itself {
            return Ok(client);
        }
        let url = self.store.as_ref().map_or("memory:", |url| &url.0);
        client.with_store(store(url, &self.url.0, self.options).await?)
    }
}

/// A store in this process is that of one broker: equal queues of two brokers are two.
async fn store(url: &str, broker: &str, options: ConnectOptions) -> Result<Arc<dyn Store>> {
    match scheme(url) {
        "memory" if url == "memory:" => Ok(store::of_process(broker, &options.clock)),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
        | "rediss+sentinel" => longshore_redis::open_store(url, options).await,
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "no store for \"{}:\" in this build; known are memory: and, with the feature `redis`, \
                 redis:, rediss:, redis+cluster:, rediss+cluster:, redis+sentinel: and rediss+sentinel:",
                longshore_core::printable(shown(url), 32)
            ),
        )),
    }
}

async fn transport(url: &str, options: ConnectOptions) -> Result<Arc<dyn Transport>> {
    match scheme(url) {
        "memory" => longshore_memory::connect(url, options),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => longshore_amqp::connect(url, options).await,
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
        | "rediss+sentinel" => longshore_redis::connect(url, options).await,
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "no transport for \"{}:\" in this build; known are memory:, amqp: and amqps: (feature `amqp`), \
                 redis:, rediss:, redis+cluster:, rediss+cluster:, redis+sentinel: and rediss+sentinel: (feature `redis`)",
                longshore_core::printable(shown(url), 32)
            ),
        )),
    }
}

/// What stands before the first colon, where it can be a scheme at all (RFC 3986, 3.1).
fn scheme(url: &str) -> &str {
    let (scheme, _) = url.split_once(':').unwrap_or(("", url));
    let fits = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if fits { scheme } else { "" }
}

/// The scheme where it is one for certain: what stands before a colon alone can be a user, or the
/// beginning of a password.
fn shown(url: &str) -> &str {
    let scheme = scheme(url);
    let rest = url.get(scheme.len()..).unwrap_or_default();
    match rest.starts_with("://") || scheme == "memory" {
        true => scheme,
        false => "",
    }
}

#[track_caller]
fn checked(what: &str, time: Duration) -> Duration {
    assert!(
        !time.is_zero() && time <= Duration::from_secs(300),
        "{what} lies above zero and at or below 5 minutes; got {time:?}"
    );
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_scheme_names_the_known_ones_and_shows_no_password() {
        for url in [
            "kafka://user:canary@host",
            "user:canary@host",
            "canary:x@host",
            "canary",
            "",
        ] {
            let error = Connect::new(url).open().await.expect_err("no transport");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(
                !format!("{error:?} {error}").contains("canary"),
                "{error:?}"
            );
            assert!(!format!("{:?}", Connect::new(url)).contains("canary"));
        }
    }

    #[test]
    fn absurd_times_are_refused_with_the_range() {
        let panic = std::panic::catch_unwind(|| Connect::new("memory:").heartbeat(Duration::ZERO))
            .expect_err("zero is refused");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        assert!(
            text.is_some_and(|text| text.contains("5 minutes")),
            "{text:?}"
        );
    }
}
