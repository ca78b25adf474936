//! How a private RabbitMQ is configured and started.

use std::collections::BTreeMap;

use super::broker::{Broker, Layout};
use super::error::Error;
use super::folder::Folder;
use super::guardian::Guardian;
use super::kind::BrokerKind;
use super::node::Node;
use super::port::Port;
use super::program::Program;
use super::tls_files::TlsFiles;

const SERVER: &str = "rabbitmq-server";
/// The node's name ends in `localhost`, which minimal containers may not be able to resolve.
const NAMES: &[u8] = b"{host, {127,0,0,1}, [\"localhost\"]}.\n{lookup, [file, native]}.\n";

/// Options of a private RabbitMQ, from [`Broker::rabbitmq`].
#[derive(Debug, Clone, Default)]
pub struct RabbitMqBuilder {
    tls: Option<TlsFiles>,
    config: Vec<String>,
    advanced: Option<String>,
    plugins: Vec<String>,
}

impl RabbitMqBuilder {
    /// A TLS listener beside the plain one; see [`Broker::tls_url`].
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// A line of `rabbitmq.conf`, such as `heartbeat = 10`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// The whole `advanced.config`, such as `[{rabbit, [{channel_tick_interval, 256}]}].`.
    #[must_use]
    pub fn advanced_config(mut self, term: impl Into<String>) -> Self {
        self.advanced = Some(term.into());
        self
    }

    /// A plugin to enable, such as `rabbitmq_shovel`. None is enabled otherwise. A plugin with listeners of
    /// its own needs their ports configured, or two such brokers collide.
    #[must_use]
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.plugins.push(name.into());
        self
    }

    /// Starts it and waits until it greets an AMQP client.
    ///
    /// # Errors
    /// Not installed, ended, or not ready within 90 s; with the tail of its log.
    pub async fn start(self) -> Result<Broker, Error> {
        let program = Program::locate(BrokerKind::RabbitMq)?;
        let control = program.companion(SERVER, "rabbitmqctl", true)?;
        let folder = Folder::create(&program)?;
        let guardian = Guardian::start(folder.path())?;
        let mut ports = vec![Port::reserve()?, Port::reserve()?];
        let epmd_port = Port::reserve()?;
        let tls_port = match &self.tls {
            Some(_) => {
                ports.push(Port::reserve()?);
                Some(ports[2].number())
            }
            None => None,
        };

        let environment = self.environment(&folder, &ports, &epmd_port, tls_port)?;
        // Erlang would start its name server as a daemon that nobody stops; ours is a child like the rest.
        let mut epmd = program.companion(SERVER, "epmd", false)?;
        epmd.extend(["-address", "127.0.0.1", "-port"].map(str::to_owned));
        epmd.push(epmd_port.number().to_string());
        let epmd = Node::new(
            "epmd",
            epmd,
            Vec::new(),
            folder.path().join("epmd.log"),
            vec![epmd_port],
        );
        let server = Node::new(
            SERVER,
            program.with(&[]),
            environment.clone(),
            folder.path().join("server.log"),
            ports,
        );
        Broker::launch(
            Layout::RabbitMq {
                control,
                environment,
            },
            vec![server],
            Some(epmd),
            tls_port,
            guardian,
        )
        .await
    }

    /// Every file the server would otherwise look for under `/etc` is named here, existing or not.
    fn environment(
        &self,
        folder: &Folder,
        ports: &[Port],
        epmd: &Port,
        tls: Option<u16>,
    ) -> Result<Vec<(String, String)>, Error> {
        folder.write(
            ".erlang.cookie",
            format!("longshore{}", epmd.number()).as_bytes(),
        )?;
        let mut config = String::from("log.console.level = info\n");
        if let (Some(files), Some(port)) = (&self.tls, tls) {
            let ca = folder.import("ca.pem", &files.ca)?;
            let cert = folder.import("cert.pem", &files.cert)?;
            let key = folder.import("key.pem", &files.key)?;
            config.push_str(&format!(
                "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n"
            ));
        }
        for line in &self.config {
            config.push_str(line);
            config.push('\n');
        }
        let advanced = self.advanced.as_deref().unwrap_or("[].");
        let plugins = format!("[{}].\n", self.plugins.join(","));
        folder.subfolder("conf.d")?;
        let variables = BTreeMap::from([
            ("HOME", folder.inside("")),
            ("ERL_CRASH_DUMP", folder.inside("erl_crash.dump")),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_INETRC", folder.write("inetrc", NAMES)?),
            ("ERL_EPMD_PORT", epmd.number().to_string()),
            (
                "RABBITMQ_ADVANCED_CONFIG_FILE",
                folder.write("advanced.config", advanced.as_bytes())?,
            ),
            (
                "RABBITMQ_CONFIG_FILE",
                folder.write("rabbitmq.conf", config.as_bytes())?,
            ),
            ("RABBITMQ_CONFIG_FILES", folder.inside("conf.d")),
            (
                "RABBITMQ_CONF_ENV_FILE",
                folder.write("rabbitmq-env.conf", b"")?,
            ),
            ("RABBITMQ_DIST_PORT", ports[1].number().to_string()),
            (
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                folder.write("enabled_plugins", plugins.as_bytes())?,
            ),
            ("RABBITMQ_LOGS", "-".to_owned()),
            ("RABBITMQ_LOG_BASE", folder.inside("log")),
            ("RABBITMQ_MNESIA_BASE", folder.inside("mnesia")),
            ("RABBITMQ_NODENAME", "longshore@localhost".to_owned()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", ports[0].number().to_string()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
            ),
        ]);
        Ok(variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect())
    }
}
