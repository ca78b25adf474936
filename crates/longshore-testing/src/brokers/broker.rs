//! A private broker: one noun for both kinds.

use std::net::SocketAddr;
use std::path::Path;

use super::error::{Error, ErrorKind};
use super::guardian::Guardian;
use super::kind::BrokerKind;
use super::node::{Node, prepared};
use super::redis_topology::Topology;
use super::resp::{self, Reply};
use super::version::{ServerVersion, rabbitmq_version, redis_version};

/// A private broker on free ports of 127.0.0.1, with a data folder of its own.
///
/// It consists of one node, or of several for a Redis Cluster or a sentinel set-up; methods without an index
/// act on all of them. Ports, data and URL stay the same from start to drop, over any number of kills and
/// restarts. No method is tied to the tokio runtime the broker was started on.
///
/// Dropping it kills every process it started (without ceremony: `kill -9`), removes its data, and blocks
/// for the few milliseconds that takes. The same happens when this process dies in any way.
#[derive(Debug)]
pub struct Broker {
    // First, so that everything is killed before the nodes are waited for.
    guardian: Guardian,
    nodes: Vec<Node>,
    epmd: Option<Node>,
    layout: Layout,
    tls_port: Option<u16>,
    version: ServerVersion,
}

/// What differs between the kinds after configuration.
#[derive(Debug)]
pub(crate) enum Layout {
    RabbitMq {
        control: Vec<String>,
        environment: Vec<(String, String)>,
    },
    Redis(Topology),
}

impl Broker {
    pub(crate) async fn launch(
        layout: Layout,
        nodes: Vec<Node>,
        epmd: Option<Node>,
        tls_port: Option<u16>,
        guardian: Guardian,
    ) -> Result<Self, Error> {
        let version = ServerVersion {
            product: "",
            number: String::new(),
        };
        let mut broker = Self {
            guardian,
            nodes,
            epmd,
            layout,
            tls_port,
            version,
        };
        broker.start_epmd().await?;
        broker.spawn_stopped()?;
        for index in 0..broker.nodes.len() {
            broker.version = broker.ready(index).await?;
        }
        if let Layout::Redis(topology) = &broker.layout {
            topology.form(&broker.nodes).await?;
            topology.formed(&mut broker.nodes).await?;
        }
        Ok(broker)
    }

    /// Which kind it is.
    pub fn kind(&self) -> BrokerKind {
        match self.layout {
            Layout::RabbitMq { .. } => BrokerKind::RabbitMq,
            Layout::Redis(_) => BrokerKind::Redis,
        }
    }

    /// Where clients connect without TLS: `amqp://guest:guest@127.0.0.1:PORT`, `redis://127.0.0.1:PORT`,
    /// `redis+cluster://HOST:PORT,HOST:PORT,…` or `redis+sentinel://HOST:PORT/longshore` (the path names the
    /// monitored primary).
    pub fn url(&self) -> String {
        match &self.layout {
            Layout::RabbitMq { .. } => format!("amqp://guest:guest@{}", self.addr(0)),
            Layout::Redis(topology) => topology.url(&self.nodes),
        }
    }

    /// Where clients connect with TLS, by the name `localhost`.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] where the builder was given no certificate.
    pub fn tls_url(&self) -> Result<String, Error> {
        let port = self.tls_port.ok_or_else(|| {
            Error::new(
                ErrorKind::NotConfigured,
                "this broker has no TLS listener: give its builder `.tls(files)`",
            )
        })?;
        Ok(match self.layout {
            Layout::RabbitMq { .. } => format!("amqps://guest:guest@localhost:{port}"),
            Layout::Redis(_) => format!("rediss://localhost:{port}"),
        })
    }

    /// The folder with its configuration, logs and data, as this process sees it.
    pub fn data_folder(&self) -> &Path {
        self.guardian.folder()
    }

    /// The number of nodes: 1, or more for a Redis Cluster or a sentinel set-up.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The address of a node's plain listener, for a [`Proxy`](crate::proxy::Proxy) or a raw socket.
    ///
    /// # Panics
    /// Where there is no such node, as all methods with an index.
    #[track_caller]
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.nodes[node].port().addr()
    }

    /// What runs, as the server itself says.
    pub fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// The process group of a node, which is also the process id of the command that leads it (for RabbitMQ a
    /// shell, with the Erlang VM in the same group). `None` while it is killed or stopped.
    #[track_caller]
    pub fn process_group(&self, node: usize) -> Option<u32> {
        self.nodes[node].group()
    }

    /// `kill -9` of every node with all its processes; returns when their ports are closed.
    ///
    /// # Errors
    /// The operating system's, or [`ErrorKind::NotReady`] where a process does not die.
    pub async fn kill(&mut self) -> Result<(), Error> {
        for node in &self.nodes {
            node.signal("KILL")?;
        }
        for index in 0..self.nodes.len() {
            self.nodes[index].kill().await?;
        }
        self.tell_guardian()
    }

    /// `kill -9` of one node; returns when its ports are closed.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub async fn kill_node(&mut self, node: usize) -> Result<(), Error> {
        self.nodes[node].kill().await?;
        self.tell_guardian()
    }

    /// Asks every node to shut down properly (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] where one does not end within a minute; it is killed then.
    pub async fn stop(&mut self) -> Result<(), Error> {
        for index in 0..self.nodes.len() {
            self.nodes[index].stop().await?;
        }
        self.tell_guardian()
    }

    /// Starts the nodes that were killed or stopped, on the same data and the same ports, and waits until
    /// they serve clients.
    ///
    /// RabbitMQ serves clients a little before the last of its quorum queues has elected a leader.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_again(&mut self) -> Result<(), Error> {
        for index in self.spawn_stopped()? {
            self.version = self.ready(index).await?;
        }
        if let Layout::Redis(topology) = &self.layout {
            topology.formed(&mut self.nodes).await?;
        }
        Ok(())
    }

    /// Starts one node that was killed or stopped and waits until it serves clients, not until the others
    /// know of it.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`ErrorKind::Command`] where it runs.
    pub async fn start_node(&mut self, node: usize) -> Result<(), Error> {
        self.nodes[node].spawn()?;
        self.tell_guardian()?;
        self.ready(node).await.map(drop)
    }

    /// Suspends every node (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn freeze(&self) -> Result<(), Error> {
        for node in &self.nodes {
            node.signal("STOP")?;
        }
        Ok(())
    }

    /// Resumes what [`freeze`](Self::freeze) suspended.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn thaw(&self) -> Result<(), Error> {
        for node in &self.nodes {
            node.signal("CONT")?;
        }
        Ok(())
    }

    /// Runs `rabbitmqctl -q` with these arguments against this broker and returns what it printed.
    ///
    /// # Errors
    /// [`ErrorKind::Command`] with its error output where it fails, or where this is no RabbitMQ.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let Layout::RabbitMq {
            control,
            environment,
        } = &self.layout
        else {
            return Err(Error::new(
                ErrorKind::Command,
                "rabbitmqctl is for RabbitMQ: this broker is Redis",
            ));
        };
        let mut command = prepared(control, environment);
        command.arg("-q").args(arguments);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = match run.await {
            Ok(output) => output.map_err(|error| Error::io("run rabbitmqctl", error))?,
            Err(error) => return Err(Error::io("run rabbitmqctl", error.into())),
        };
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(
            ErrorKind::Command,
            format!(
                "rabbitmqctl {} failed: {}\n{printed}",
                arguments.join(" "),
                complaint.trim()
            ),
        ))
    }

    /// Sends one command to node 0 of a Redis, on a connection of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Command`] with Redis' words where it refuses, or where this is no Redis.
    pub async fn redis_command(&self, command: &[&str]) -> Result<Reply, Error> {
        self.redis_command_on(0, command).await
    }

    /// Sends one command to one node of a Redis, on a connection of its own.
    ///
    /// # Errors
    /// As [`redis_command`](Self::redis_command).
    pub async fn redis_command_on(&self, node: usize, command: &[&str]) -> Result<Reply, Error> {
        match self.layout {
            Layout::Redis(_) => resp::call(self.addr(node), command).await,
            Layout::RabbitMq { .. } => Err(Error::new(
                ErrorKind::Command,
                "this broker is RabbitMQ: use `rabbitmqctl`",
            )),
        }
    }

    /// Erlang starts a name server of its own, a daemon, if it does not find one.
    async fn start_epmd(&mut self) -> Result<(), Error> {
        let Some(epmd) = &mut self.epmd else {
            return Ok(());
        };
        epmd.spawn()?;
        let addr = epmd.port().addr();
        epmd.until("ready", || async move {
            let connected = tokio::net::TcpStream::connect(addr).await;
            connected
                .map(drop)
                .map_err(|error| Error::io("connect", error))
        })
        .await?;
        self.tell_guardian()
    }

    /// Starts what does not run and returns which that was. The guardian learns of each at once, so that a
    /// failure half-way leaves nothing behind.
    fn spawn_stopped(&mut self) -> Result<Vec<usize>, Error> {
        let stopped: Vec<usize> = (0..self.nodes.len())
            .filter(|index| self.nodes[*index].group().is_none())
            .collect();
        for index in &stopped {
            let spawned = self.nodes[*index].spawn();
            self.tell_guardian()?;
            spawned?;
        }
        Ok(stopped)
    }

    async fn ready(&mut self, index: usize) -> Result<ServerVersion, Error> {
        let node = &mut self.nodes[index];
        let addr = node.port().addr();
        match self.layout {
            Layout::RabbitMq { .. } => node.until("ready", || rabbitmq_version(addr)).await,
            Layout::Redis(_) => node.until("ready", || redis_version(addr, None)).await,
        }
    }

    fn tell_guardian(&mut self) -> Result<(), Error> {
        let groups: Vec<u32> = self
            .nodes
            .iter()
            .chain(&self.epmd)
            .filter_map(Node::group)
            .collect();
        self.guardian.watch(&groups)
    }
}
