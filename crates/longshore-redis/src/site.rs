//! Where the servers are: one server, the master the sentinels name, or the nodes of a cluster.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use longshore_core::{ConnectOptions, Error, ErrorKind, Result};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio_util::sync::CancellationToken;

use crate::{
    address::{Address, Host, Kind, Login},
    entry::{array, int, text},
    failure::{checked, unexpected, unreachable},
    tls,
};

/// The servers behind one URL.
pub(crate) struct Site {
    pub(crate) address: Address,
    pub(crate) options: ConnectOptions,
    /// Cancelled once the transport is closed: nothing connects any more.
    pub(crate) closed: CancellationToken,
    certificates: TlsCertificates,
    slots: Mutex<Vec<(u16, u16, Host)>>,
    /// Held while slots are learned; when that last failed.
    learned: tokio::sync::Mutex<Option<Duration>>,
}

/// An open connection.
#[derive(Clone)]
pub(crate) struct Opened {
    connection: MultiplexedConnection,
    /// Cancelled once it has been seen to end.
    down: CancellationToken,
}

/// Which server of the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Whichever holds this slot now; the only one or the master where there is no cluster.
    Slot(u16),
    /// This node of a cluster.
    Node(Host),
}

impl Opened {
    /// Sends these commands in one write and waits for all replies, or for the connection to end.
    pub(crate) async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        // A request handed over while redis-rs takes its end of the channel down is never answered:
        // it stays in the channel for as long as this very connection can send.
        tokio::select! {
            biased;
            replies = self.connection.send_packed_commands(pipeline, 0, pipeline.len()) => replies,
            () = self.down.cancelled() => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.is_cancelled()
    }
}

impl Site {
    /// # Errors
    /// [`ErrorKind::Invalid`] where TLS is asked for and the authorities given are none.
    pub(crate) fn new(address: Address, options: ConnectOptions) -> Result<Self> {
        let authorities = options.certificate_authorities.clone();
        Ok(Self {
            certificates: tls::certificates(address.tls, authorities)?,
            address,
            options,
            closed: CancellationToken::new(),
            slots: Mutex::new(Vec::new()),
            learned: tokio::sync::Mutex::new(None),
        })
    }

    /// The node that holds a slot; `None` where there is no cluster.
    pub(crate) async fn node_of(&self, slot: u16) -> Result<Option<Host>> {
        if self.address.kind != Kind::Cluster {
            return Ok(None);
        }
        if let Some(host) = self.known_node(slot) {
            return Ok(Some(host));
        }
        let mut learned = self.learned.lock().await;
        if let Some(host) = self.known_node(slot) {
            return Ok(Some(host));
        }
        // Everybody who needs a slot waits here; not everybody has to find out that none is known.
        let now = self.options.clock.monotonic();
        if learned.is_some_and(|failed| now.saturating_sub(failed) < Duration::from_millis(200)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "no node of the Redis Cluster says who holds which slot",
            ));
        }
        let outcome = self.learn_slots().await;
        *learned = outcome.is_err().then(|| self.options.clock.monotonic());
        outcome?;
        self.known_node(slot).map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "a slot of the Redis Cluster has no node just now",
            )
        })
    }

    /// Called where an answer shows that the cluster has changed.
    pub(crate) fn forget_slots(&self) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Opens one connection. Takes at most the connection time-out.
    pub(crate) async fn open(&self, place: &Place, role: &str) -> Result<Opened> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the client was closed"));
        }
        let limit = self.options.connect_timeout;
        let opened = tokio::time::timeout(limit, self.open_unbounded(place, role)).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unavailable,
                format!("no Redis server answered within {limit:?}"),
            ))
        });
        if opened.is_err() {
            self.forget_slots();
        }
        opened
    }

    async fn open_unbounded(&self, place: &Place, role: &str) -> Result<Opened> {
        let host = match (&self.address.kind, place) {
            (Kind::Single, _) => self.address.hosts[0].clone(),
            (Kind::Sentinel(master), _) => self.master(master).await?,
            (Kind::Cluster, Place::Node(host)) => host.clone(),
            (Kind::Cluster, Place::Slot(slot)) => {
                self.node_of(*slot).await?.ok_or_else(unexpected)?
            }
        };
        let login = self.address.login_at(&host)?;
        let opened = self.dial(&host, Some(login), self.address.db).await;
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return Err(unreachable(&self.address, &error));
            }
        };
        let mut greeting = redis::pipe();
        greeting
            .cmd("CLIENT")
            .arg("SETNAME")
            .arg(self.visible_name(role));
        greeting.cmd("ROLE");
        let replies = opened.exchange(&greeting).await;
        let replies = replies.map_err(|error| unreachable(&self.address, &error))?;
        // Both may be outside the user's ACL; then the name stays empty and writes tell the role.
        if let Some(Value::Array(role)) = replies.into_iter().nth(1) {
            let role = role.into_iter().next().and_then(text);
            if role.is_some_and(|role| role != "master") {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the Redis server at {host} is a replica and takes no writes"),
                ));
            }
        }
        Ok(opened)
    }

    async fn dial(
        &self,
        host: &Host,
        login: Option<&Login>,
        db: i64,
    ) -> Result<Opened, RedisError> {
        let addr = if self.address.tls {
            ConnectionAddr::TcpTls {
                host: host.name.clone(),
                port: host.port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host.name.clone(), host.port)
        };
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(db);
        if let Some(username) = login.and_then(|login| login.username.as_ref()) {
            settings = settings.set_username(username);
        }
        if let Some(password) = login.and_then(|login| login.password.as_ref()) {
            settings = settings.set_password(password);
        }
        let info = addr
            .into_connection_info()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);
        let client = if self.address.tls {
            Client::build_with_tls(info, self.certificates.clone())?
        } else {
            Client::open(info)?
        };
        let down = CancellationToken::new();
        let seen = down.clone();
        // Lives as long as what reads and writes the connection.
        let running = down.clone().drop_guard();
        // Time-outs of requests are ours (`Link::exchange`): they also end the connection.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024)
            .set_push_sender(
                move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                    let _ = &running;
                    if push.kind == PushKind::Disconnection {
                        seen.cancel();
                    }
                    Ok(())
                },
            );
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Opened { connection, down })
    }

    /// Asks one sentinel after the other for the master.
    async fn master(&self, name: &str) -> Result<Host> {
        let mut last = Error::new(ErrorKind::Unavailable, "no sentinel is configured");
        for host in &self.address.hosts {
            match self.ask_sentinel(host, name).await {
                Ok(host) => return Ok(host),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, host: &Host, name: &str) -> Result<Host> {
        let mut question = redis::pipe();
        question
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(name);
        let share = self.options.connect_timeout / (self.address.hosts.len() as u32 + 1);
        // Sentinels seldom share the servers' password; the second try is for those that do.
        for login in [None, Some(self.address.login_at(host)?)] {
            let asked = tokio::time::timeout(share, async {
                let mut opened = self.dial(host, login, 0).await?;
                opened.exchange(&question).await
            });
            let reply = match asked.await {
                Ok(Ok(replies)) => replies.into_iter().next().unwrap_or(Value::Nil),
                Ok(Err(error)) if login.is_none() && error.code() == Some("NOAUTH") => continue,
                Ok(Err(error)) => return Err(unreachable(&self.address, &error)),
                Err(_) => break,
            };
            if matches!(&reply, Value::ServerError(error) if login.is_none() && error.code() == "NOAUTH")
            {
                continue;
            }
            let mut parts = array(checked(reply)?).into_iter();
            let (Some(name), Some(port)) = (parts.next().and_then(text), parts.next()) else {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the sentinel at {host} knows no master of that name"),
                ));
            };
            let port = int(&port)
                .and_then(|port| port.try_into().ok())
                .ok_or_else(unexpected)?;
            return Host::new(name, port).ok_or_else(unexpected);
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the sentinel at {host} does not answer"),
        ))
    }

    fn known_node(&self, slot: u16) -> Option<Host> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, host) = slots
            .iter()
            .find(|(from, to, _)| (*from..=*to).contains(&slot))?;
        Some(host.clone())
    }

    /// Asks one node after the other who holds what.
    async fn learn_slots(&self) -> Result<()> {
        let mut last = Error::new(ErrorKind::Unavailable, "no cluster node is configured");
        let mut question = redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        let share = self.options.connect_timeout / (self.address.hosts.len() as u32 + 1);
        for host in &self.address.hosts {
            let login = self.address.login_at(host)?;
            let asked = tokio::time::timeout(share, async {
                let mut opened = self.dial(host, Some(login), 0).await?;
                opened.exchange(&question).await
            });
            let reply = match asked.await {
                Ok(Ok(replies)) => checked(replies.into_iter().next().unwrap_or(Value::Nil)),
                Ok(Err(error)) => Err(unreachable(&self.address, &error)),
                Err(_) => Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the cluster node at {host} does not answer"),
                )),
            };
            match reply {
                Ok(reply) => {
                    let slots = array(reply)
                        .into_iter()
                        .filter_map(|row| slot_range(row, host));
                    let slots: Vec<_> = slots.collect();
                    if !slots.is_empty() {
                        *self.slots.lock().unwrap_or_else(PoisonError::into_inner) = slots;
                        return Ok(());
                    }
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the server's tools show: CLIENT SETNAME takes no spaces and no control characters.
    fn visible_name(&self, role: &str) -> String {
        let name = format!("{}:{role}", self.options.name);
        name.chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '_' })
            .collect()
    }
}

/// The time after which an unanswered request counts as lost with its connection: two missed
/// heartbeats of the time a connection may be silent.
pub(crate) fn patience(options: &ConnectOptions) -> Duration {
    options
        .heartbeat
        .min(options.confirm_timeout / 2)
        .max(Duration::from_millis(100))
}

pub(crate) fn slot_range(row: Value, asked: &Host) -> Option<(u16, u16, Host)> {
    let mut row = array(row).into_iter();
    let from = int(&row.next()?)?.try_into().ok()?;
    let to = int(&row.next()?)?.try_into().ok()?;
    let mut master = array(row.next()?).into_iter();
    // A node that does not know its own address answers with an empty one or none.
    let name = master
        .next()
        .and_then(text)
        .filter(|name| !name.is_empty() && name != "?");
    let port = int(&master.next()?)?.try_into().ok()?;
    let name = name.unwrap_or_else(|| asked.name.clone());
    Some((from, to, Host::new(name, port)?))
}

#[cfg(test)]
mod tests;
