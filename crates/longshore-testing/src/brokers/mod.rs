//! Real brokers for tests: private ones to be killed, and the shared ones of a test run.
//!
//! A [`Broker`] is a private RabbitMQ or Redis on free ports of 127.0.0.1 with a data folder of its
//! own. It never touches a broker the system runs. Dropping it kills what it started and removes the
//! folder; when the test process itself dies, even by `kill -9`, a small shell process that waits for
//! that does the same.
//!
//! Most tests need no broker of their own: [`amqp_url`] and [`redis_url`] give the shared ones.
//!
//! ```no_run
//! # async fn example() -> Result<(), longshore_testing::brokers::Error> {
//! use longshore_testing::brokers::{Broker, BrokerKind};
//!
//! let mut broker = Broker::start(BrokerKind::RabbitMq).await?;
//! println!("{} at {}", broker.version(), broker.url());
//! broker.kill().await?; // as `kill -9`
//! broker.start_again().await?; // same data, same ports
//! # Ok(())
//! # }
//! ```
//!
//! # Which binaries
//!
//! | variable | meaning |
//! |---|---|
//! | `LONGSHORE_RABBITMQ_SERVER` | command line of the server, split at white space; default: `rabbitmq-server` in `/usr/lib/rabbitmq/bin` or on `PATH` |
//! | `LONGSHORE_REDIS_SERVER` | the same for Redis or Valkey; default: `redis-server`, then `valkey-server` on `PATH` |
//! | `LONGSHORE_BROKER_DATA` | folder for the data folders, as this process sees it; default: the temporary folder |
//!
//! A command of the form `chroot DIR /path/of/server` runs a server of another distribution. Its data
//! is then kept under `DIR/var/tmp`, and `rabbitmqctl` runs through the same `chroot`.

mod broker;
mod error;
mod folder;
mod guardian;
mod kind;
mod node;
mod port;
mod program;
mod rabbitmq;
mod redis;
mod redis_topology;
mod resp;
mod shared;
mod start;
mod tls_files;
mod version;

pub use broker::Broker;
pub use error::{Error, ErrorKind};
pub use kind::BrokerKind;
pub use program::installed;
pub use rabbitmq::RabbitMqBuilder;
pub use redis::{Fsync, RedisBuilder};
pub use resp::Reply;
pub use shared::{
    AMQP_URL_VARIABLE, PYTHON_VARIABLE, REDIS_URL_VARIABLE, amqp_url, python, redis_url,
};
pub use tls_files::TlsFiles;
pub use version::{ServerVersion, server_version};
