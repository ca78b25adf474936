//! How private Redis (or Valkey) processes are configured and started.

use super::broker::{Broker, Layout};
use super::error::{Error, ErrorKind};
use super::folder::Folder;
use super::guardian::Guardian;
use super::kind::BrokerKind;
use super::node::Node;
use super::port::Port;
use super::program::Program;
use super::redis_topology::{MASTER_NAME, Topology};
use super::tls_files::TlsFiles;

/// How often Redis flushes its append-only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Before each answer: what was confirmed survives `kill -9` and a power cut.
    #[default]
    Always,
    /// Once a second, Redis' own default: a power cut loses up to that, and `kill -9` what was held back
    /// while an earlier flush was under way.
    EverySecond,
    /// There is no append-only file: everything is lost when the process ends.
    NoAppendOnlyFile,
}

/// Options of a private Redis, from [`Broker::redis`].
#[derive(Debug, Clone, Default)]
pub struct RedisBuilder {
    fsync: Fsync,
    tls: Option<TlsFiles>,
    config: Vec<String>,
    topology: Topology,
}

impl RedisBuilder {
    /// How durable its confirmations are.
    #[must_use]
    pub fn fsync(mut self, fsync: Fsync) -> Self {
        self.fsync = fsync;
        self
    }

    /// A TLS listener beside the plain one; see [`Broker::tls_url`]. Clients need no certificate. Only for a
    /// single server.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// A line of `redis.conf` for every server (not for sentinels), such as `maxmemory 10mb`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// A Redis Cluster of so many primaries, which share the slots evenly; one is enough for Redis to
    /// enforce the cluster's rules.
    #[must_use]
    pub fn cluster(mut self, primaries: usize) -> Self {
        self.topology = Topology::Cluster { primaries };
        self
    }

    /// One primary (node 0), so many replicas (the next nodes) and one sentinel (the last node), which
    /// promotes a replica about a second after the primary has gone.
    #[must_use]
    pub fn sentinel(mut self, replicas: usize) -> Self {
        self.topology = Topology::Sentinel { replicas };
        self
    }

    /// Starts it and waits until it answers commands; a cluster until all its slots are served, a sentinel
    /// until it knows the replicas.
    ///
    /// # Errors
    /// Not installed, ended, or not ready within 90 s, with the tail of its log. Options that
    /// contradict each other are [`ErrorKind::NotConfigured`].
    pub async fn start(self) -> Result<Broker, Error> {
        if self.tls.is_some() && self.topology != Topology::Single {
            return Err(Error::new(
                ErrorKind::NotConfigured,
                "TLS is offered for a single Redis only: leave out cluster or sentinel",
            ));
        }
        if self.topology == (Topology::Cluster { primaries: 0 }) {
            return Err(Error::new(
                ErrorKind::NotConfigured,
                "a cluster needs at least one primary",
            ));
        }
        let program = Program::locate(BrokerKind::Redis)?;
        let folder = Folder::create(&program)?;
        let guardian = Guardian::start(folder.path())?;
        let mut nodes = Vec::new();
        let mut tls_port = None;
        for index in 0..self.topology.servers() {
            let primary = nodes.first().map(|node: &Node| node.port().number());
            let (node, tls) = self.server(&program, &folder, index, primary)?;
            nodes.push(node);
            tls_port = tls_port.or(tls);
        }
        if let Topology::Sentinel { .. } = self.topology {
            nodes.push(sentinel(&program, &folder, nodes[0].port().number())?);
        }
        Broker::launch(
            Layout::Redis(self.topology),
            nodes,
            None,
            tls_port,
            guardian,
        )
        .await
    }

    fn server(
        &self,
        program: &Program,
        folder: &Folder,
        index: usize,
        primary: Option<u16>,
    ) -> Result<(Node, Option<u16>), Error> {
        let folder = folder.subfolder(&format!("node{index}"))?;
        let mut ports = vec![Port::reserve()?];
        let append_only = match self.fsync {
            Fsync::Always => "appendonly yes\nappendfsync always",
            Fsync::EverySecond => "appendonly yes\nappendfsync everysec",
            Fsync::NoAppendOnlyFile => "appendonly no",
        };
        let mut config = format!(
            "{}\nsave \"\"\n{append_only}\nenable-debug-command local\n",
            base_config(&folder, &ports[0])
        );
        let mut tls_port = None;
        match (&self.topology, primary) {
            (Topology::Cluster { .. }, _) => {
                ports.push(Port::reserve()?);
                let bus = ports[1].number();
                config.push_str(&format!(
                    "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 2000\n"
                ));
            }
            (Topology::Sentinel { .. }, Some(primary)) => config.push_str(&format!(
                "replicaof 127.0.0.1 {primary}\nrepl-diskless-sync-delay 0\n"
            )),
            (Topology::Sentinel { .. }, None) => config.push_str("repl-diskless-sync-delay 0\n"),
            (Topology::Single, _) => {
                if let Some(files) = &self.tls {
                    ports.push(Port::reserve()?);
                    let port = ports[1].number();
                    tls_port = Some(port);
                    let ca = folder.import("ca.pem", &files.ca)?;
                    let cert = folder.import("cert.pem", &files.cert)?;
                    let key = folder.import("key.pem", &files.key)?;
                    config.push_str(&format!("tls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {ca}\ntls-cert-file {cert}\ntls-key-file {key}\n"));
                }
            }
        }
        for line in &self.config {
            config.push_str(line);
            config.push('\n');
        }
        let file = folder.write("redis.conf", config.as_bytes())?;
        let name = format!("redis-server (node {index})");
        Ok((
            Node::new(
                name,
                program.with(&[file]),
                Vec::new(),
                folder.path().join("server.log"),
                ports,
            ),
            tls_port,
        ))
    }
}

fn sentinel(program: &Program, folder: &Folder, primary: u16) -> Result<Node, Error> {
    let folder = folder.subfolder("sentinel")?;
    let port = Port::reserve()?;
    let config = format!(
        "{}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds {MASTER_NAME} 1000\nsentinel failover-timeout {MASTER_NAME} 5000\n",
        base_config(&folder, &port)
    );
    let file = folder.write("sentinel.conf", config.as_bytes())?;
    let command = program.with(&[file, "--sentinel".to_owned()]);
    Ok(Node::new(
        "redis-server (sentinel)",
        command,
        Vec::new(),
        folder.path().join("server.log"),
        vec![port],
    ))
}

fn base_config(folder: &Folder, port: &Port) -> String {
    format!(
        "bind 127.0.0.1\nport {}\ndaemonize no\nlogfile \"\"\ndir {}",
        port.number(),
        folder.inside("")
    )
}
