//! One connection to one host, from the first octet to the last.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_rs::Runtime;
use futures_util::StreamExt;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    auth::AuthProvider,
    types::{LongString, ShortString},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use longshore_core::{Error, ErrorKind, Ids, Limits, Result};
use tokio::{net::TcpStream, sync::watch, time::timeout};

use crate::{
    address::{Address, Host},
    error::{is_full, is_of_a_channel, late, told},
    guard::{FRAME_MAX, Guarded, PLACEHOLDER, Server, Watch, Wire},
    runtime::Kit,
    tls::Tls,
};

/// How long anything may take that the broker answers at once when it is well.
pub(crate) const SETUP: Duration = Duration::from_secs(5);
/// How often a connection is looked at, in case nobody told of its end.
const LOOK: Duration = Duration::from_secs(1);

/// What every connection of a transport has in common.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    /// Shown in the broker's tools; each connection adds its duty.
    pub(crate) name: String,
    /// How long one host may take to let us in.
    pub(crate) patience: Duration,
    pub(crate) ids: Arc<dyn Ids>,
}

/// One live connection. Its epoch is unlike that of any other in this process.
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) watch: Arc<Watch>,
    connection: Connection,
    blocked: watch::Sender<bool>,
    /// Channels it was asked for.
    asked: AtomicU32,
    /// Those whose number is of no use any more.
    spoiled: AtomicU32,
}

static EPOCHS: AtomicU64 = AtomicU64::new(1);

impl Session {
    pub(crate) fn server(&self) -> Server {
        self.watch.server()
    }

    /// The largest frame agreed on, in bytes.
    pub(crate) fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    pub(crate) fn is_live(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker has stopped reading from this connection for want of memory or disk.
    pub(crate) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    /// Whether enough channels were opened that one whose number was used before may soon be next.
    pub(crate) fn is_worn(&self) -> bool {
        let half = u32::from(self.connection.configuration().channel_max() / 2);
        self.asked.load(Ordering::Relaxed) > half
    }

    /// Once the broker has closed a channel, lapin (4.12) lets no later one of its number be opened: it
    /// fails with the old error and keeps the number. The next one is tried then, and a connection that
    /// has lost half of its numbers by that is given up when they run out.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the connection has gone.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let opened = async {
            loop {
                match self.connection.create_channel().await {
                    Err(error) if is_of_a_channel(&error) => {
                        self.spoiled.fetch_add(1, Ordering::Relaxed);
                    }
                    opened => break opened,
                }
            }
        };
        match timeout(SETUP, opened).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => {
                let half = u32::from(self.connection.configuration().channel_max() / 2);
                if is_full(&error) && self.spoiled.load(Ordering::Relaxed) >= half {
                    tracing::info!("a connection whose channels are used up is made anew");
                    self.watch.cut();
                }
                Err(told("opening a channel", &error))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "opening a channel: the broker did not answer in time",
            )),
        }
    }

    /// Follows the connection until it is of no use any more, and then makes sure of it.
    pub(crate) async fn until_lost(&self) {
        let mut events = Box::pin(self.connection.events_listener());
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = self.watch.ended() => break,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        let reason = longshore_core::printable(&reason, 128);
                        tracing::warn!(%reason, "the broker takes no more messages for now");
                        self.blocked.send_replace(true);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!("the broker takes messages again");
                        self.blocked.send_replace(false);
                    }
                    // Errors of one channel arrive here too.
                    Some(_) if self.is_live() => {}
                    _ => break,
                },
                _ = look.tick() => {
                    if !self.is_live() {
                        break;
                    }
                    let blocked = self.connection.status().blocked();
                    self.blocked.send_if_modified(|was| std::mem::replace(was, blocked) != blocked);
                }
            }
        }
        self.watch.cut();
    }

    /// Says goodbye, within this time, and ends the connection either way.
    pub(crate) async fn close(&self, within: Duration) {
        if self.is_live() {
            let goodbye = self.connection.close(200, ShortString::from("closed"));
            let _ = timeout(within, goodbye).await;
        }
        self.watch.cut();
    }
}

/// A connection nobody holds any more has no reason to live.
impl Drop for Session {
    fn drop(&mut self) {
        self.watch.cut();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// Connects to one host, in time.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for credentials, vhost and certificates, else
    /// [`ErrorKind::Unavailable`].
    pub(crate) async fn dial(
        &self,
        host: &Host,
        duty: &str,
        limits: Limits,
        room: Option<usize>,
    ) -> Result<Session> {
        let watch = Arc::new(Watch::new(limits, self.ids.next(), room));
        // lapin's thread waits on the stream for ever unless that ends, also where nobody waits for
        // the outcome any more.
        let attempt = Attempt(Some(watch.clone()));
        match timeout(self.patience, self.dial_without_limit(host, duty, &watch)).await {
            Ok(Ok(connection)) => {
                attempt.succeed();
                Ok(Session {
                    epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
                    watch,
                    connection,
                    blocked: watch::Sender::new(false),
                    asked: AtomicU32::new(0),
                    spoiled: AtomicU32::new(0),
                })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let error = late(&format!("connecting to {host}"));
                Err(Error::new(ErrorKind::Unavailable, error.to_string()))
            }
        }
    }

    async fn dial_without_limit(
        &self,
        host: &Host,
        duty: &str,
        watch: &Arc<Watch>,
    ) -> Result<Connection> {
        let doing = format!("connecting to {host}");
        let wire = self.wire(host).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::InvalidData => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("{doing}: {error}"))
        })?;
        let guarded = Guarded::new(wire, watch.clone(), self.address.credentials.clone());
        let once = Mutex::new(Some(guarded));
        let connector = async move |_: AMQPUri, _: Runtime<Kit>| {
            let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Without auto-recovery lapin asks once; a second time is a lost connection.
            let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
            stream
                .map(AsyncTcpStream::Plain)
                .ok_or_else(|| gone().into())
        };
        let runtime = Runtime::new(Kit::current());
        Connection::connector(self.uri(host), runtime, connector, self.properties(duty))
            .await
            .map_err(|error| told(&doing, &error))
    }

    async fn wire(&self, host: &Host) -> io::Result<Box<dyn Wire>> {
        let tcp = TcpStream::connect((host.name.as_str(), host.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.wrap(&host.name, tcp).await?),
            None => Box::new(tcp),
        })
    }

    fn uri(&self, host: &Host) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: "-".to_owned(),
                    password: "-".to_owned(),
                },
                host: host.name.clone(),
                port: host.port,
            },
            vhost: self.address.vhost.clone(),
            query: AMQPQueryString {
                // A server that offers no limit would have lapin allocate 32 times 4 GiB.
                frame_max: Some(FRAME_MAX as u32),
                heartbeat: u16::try_from(self.address.heartbeat.as_secs().max(1)).ok(),
                ..AMQPQueryString::default()
            },
        }
    }

    fn properties(&self, duty: &str) -> ConnectionProperties {
        let name = &self.name;
        let property = |text: &str| LongString::from(text);
        ConnectionProperties::default()
            .with_connection_name(property(&format!("{name} {duty}")))
            .with_client_property("product".into(), property("Longshore"))
            .with_client_property("version".into(), property(env!("CARGO_PKG_VERSION")))
            .with_auth_provider(Placeholder)
    }
}

/// Cuts the stream of a connection that does not come about.
struct Attempt(Option<Arc<Watch>>);

impl Attempt {
    fn succeed(mut self) {
        self.0 = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(watch) = &self.0 {
            watch.cut();
        }
    }
}

/// The guard puts the real response in its place.
struct Placeholder;

impl AuthProvider for Placeholder {
    fn mechanism(&self) -> ShortString {
        "PLAIN".into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        Ok(PLACEHOLDER.into())
    }
}
