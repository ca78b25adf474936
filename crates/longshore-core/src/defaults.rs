//! Every default in one place.

use std::time::Duration;

/// Time to reach a broker and agree on a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a broker to confirm a publish or a settlement before it counts as unknown.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection shows that it is alive; two missed ones end it.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// Unsettled deliveries per lane.
pub const PREFETCH: u16 = 64;
/// Unsettled deliveries per owned partition.
pub const PARTITION_PREFETCH: u16 = 32;
/// Handlers running at a time.
pub const CONCURRENCY: usize = 32;
/// Starts of a handler per message.
pub const MAX_ATTEMPTS: u32 = 5;
/// Backoff before the second attempt; doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest backoff.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(300);
/// How long one start of a handler may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The longest time limit that can be configured.
pub const LONGEST_TIME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a lock lasts without renewal; renewed at a third.
pub const LOCK: Duration = Duration::from_secs(30);
/// Time for running handlers to finish once a worker is told to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// The longest delay of a message.
pub const LONGEST_DELAY: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Bytes of a dead letter's detail.
pub const DETAIL_BYTES: usize = 4096;
