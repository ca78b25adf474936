//! Which broker.

/// The brokers that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerKind {
    /// RabbitMQ.
    RabbitMq,
    /// Redis, or Valkey where the command says so.
    Redis,
}
