//! How a client connects.

use std::{fmt, sync::Arc, time::Duration};

use crate::{Clock, Ids, RandomIds, SystemClock, defaults};

/// How a client connects, alike for every transport; what a transport has no use for it ignores.
///
/// Credentials belong in the URL and are printed by nothing.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Shown in the broker's tools as the name of the connection. Default: the program's name.
    pub name: String,
    /// Time to reach a broker and agree on a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Time for a broker to confirm before a publish or settlement counts as unknown. Default 10 s.
    pub confirm_timeout: Duration,
    /// How often a connection shows that it is alive. Default 5 s.
    pub heartbeat: Duration,
    /// Certificate authorities to trust, PEM, instead of the system's.
    pub certificate_authorities: Option<Vec<u8>>,
    /// Allows credentials over an unencrypted connection to another machine. Default: refused.
    pub allow_plaintext: bool,
    /// RabbitMQ before 3.12: the `consumer_timeout` its operator has set, where not 30 minutes.
    pub consumer_timeout: Option<Duration>,
    /// Redis: the first part of every key. Default `ls`.
    pub key_prefix: String,
    /// Replies may also go to addresses that begin with this, beside the broker's own. Default: none.
    pub reply_prefix: Option<String>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let program = std::env::args().next().unwrap_or_default();
        let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
        Self {
            name: crate::printable(name, 64),
            connect_timeout: defaults::CONNECT_TIMEOUT,
            confirm_timeout: defaults::CONFIRM_TIMEOUT,
            heartbeat: defaults::HEARTBEAT,
            certificate_authorities: None,
            allow_plaintext: false,
            consumer_timeout: None,
            key_prefix: "ls".to_owned(),
            reply_prefix: None,
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(RandomIds),
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
