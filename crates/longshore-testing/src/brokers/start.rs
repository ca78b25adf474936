//! The ways to a private broker.

use super::broker::Broker;
use super::error::Error;
use super::kind::BrokerKind;
use super::rabbitmq::RabbitMqBuilder;
use super::redis::RedisBuilder;

impl Broker {
    /// Starts a broker with default options and waits until it serves clients.
    ///
    /// # Errors
    /// Not installed, ended, or not ready within 90 s; with the tail of its log.
    pub async fn start(kind: BrokerKind) -> Result<Self, Error> {
        match kind {
            BrokerKind::RabbitMq => Self::rabbitmq().start().await,
            BrokerKind::Redis => Self::redis().start().await,
        }
    }

    /// A RabbitMQ with options.
    pub fn rabbitmq() -> RabbitMqBuilder {
        RabbitMqBuilder::default()
    }

    /// A Redis with options; `appendonly yes` unless said otherwise.
    pub fn redis() -> RedisBuilder {
        RedisBuilder::default()
    }
}
