//! Where the two brokers come from: an address we are given, Docker, or processes of our own.

use longshore_testing::brokers::{self, AMQP_URL_VARIABLE, Broker, BrokerKind, REDIS_URL_VARIABLE};

use crate::compose::Compose;
use crate::{Failure, apt};

/// The URLs of a RabbitMQ and a Redis. Dropping it stops what was started for them.
pub(crate) struct Supply {
    pub(crate) amqp_url: String,
    pub(crate) redis_url: String,
    _compose: Option<Compose>,
    _private: Vec<Broker>,
}

/// What differs between the kinds here.
struct Wanted {
    kind: BrokerKind,
    name: &'static str,
    variable: &'static str,
    service: &'static str,
    service_url: &'static str,
    package: &'static str,
}

const RABBITMQ: Wanted = Wanted {
    kind: BrokerKind::RabbitMq,
    name: "RabbitMQ",
    variable: AMQP_URL_VARIABLE,
    service: "rabbitmq",
    service_url: "amqp://guest:guest@127.0.0.1:5672",
    package: "rabbitmq-server",
};
const REDIS: Wanted = Wanted {
    kind: BrokerKind::Redis,
    name: "Redis",
    variable: REDIS_URL_VARIABLE,
    service: "redis",
    service_url: "redis://127.0.0.1:6379",
    package: "redis-server",
};

impl Supply {
    /// Finds or starts both brokers and prints what they are.
    ///
    /// # Errors
    /// There is no way to a broker on this machine; the text says what to install.
    pub(crate) async fn provide() -> Result<Self, Failure> {
        let mut amqp_url = RABBITMQ.given();
        let mut redis_url = REDIS.given();
        let mut compose = None;
        let services: Vec<&str> = [(&RABBITMQ, &amqp_url), (&REDIS, &redis_url)]
            .iter()
            .filter(|(_, url)| url.is_none())
            .map(|(wanted, _)| wanted.service)
            .collect();
        if !services.is_empty() && Compose::available() {
            match Compose::start(&services) {
                Ok(started) => {
                    compose = Some(started);
                    amqp_url.get_or_insert_with(|| RABBITMQ.service_url.to_owned());
                    redis_url.get_or_insert_with(|| REDIS.service_url.to_owned());
                }
                Err(failure) => eprintln!("xtask: {failure}; trying private processes"),
            }
        }
        let mut private = Vec::new();
        let supply = Self {
            amqp_url: RABBITMQ.url_or_private(amqp_url, &mut private).await?,
            redis_url: REDIS.url_or_private(redis_url, &mut private).await?,
            _compose: compose,
            _private: private,
        };
        RABBITMQ.announce(&supply.amqp_url).await;
        REDIS.announce(&supply.redis_url).await;
        Ok(supply)
    }
}

/// Tests that kill a broker start private ones wherever the shared ones come from, so their binaries are
/// wanted in any case. Without them those tests fail, and this says so beforehand.
pub(crate) fn provide_binaries() {
    for wanted in [RABBITMQ, REDIS] {
        if let Err(failure) = wanted.binaries() {
            eprintln!("xtask: tests that kill a broker of their own will fail: {failure}");
        }
    }
}

impl Wanted {
    fn given(&self) -> Option<String> {
        std::env::var(self.variable)
            .ok()
            .filter(|url| !url.is_empty())
    }

    async fn url_or_private(
        &self,
        url: Option<String>,
        private: &mut Vec<Broker>,
    ) -> Result<String, Failure> {
        if let Some(url) = url {
            return Ok(url);
        }
        self.binaries()?;
        println!("xtask: starting a private {}", self.name);
        let broker = Broker::start(self.kind).await?;
        let url = broker.url();
        private.push(broker);
        Ok(url)
    }

    /// Makes sure that the server can be started here, by installing it if need be.
    fn binaries(&self) -> Result<(), Failure> {
        let Err(missing) = brokers::installed(self.kind) else {
            return Ok(());
        };
        if !apt::available() {
            return Err(format!(
                "{missing}; or start Docker; or set {} to the URL of one that runs",
                self.variable
            )
            .into());
        }
        apt::install(&[self.package])?;
        Ok(brokers::installed(self.kind)?)
    }

    async fn announce(&self, url: &str) {
        match brokers::server_version(url).await {
            Ok(version) => println!("xtask: using {version}"),
            Err(error) => println!("xtask: using a {} of unknown version ({error})", self.name),
        }
    }
}
