//! Longshore's transport inside one process.
//!
//! It keeps every promise that does not need a second machine: deliveries under locks, attempts
//! counted by the broker, delays, dead letters, lanes, topics, sessions, dedup windows, replies, bounded
//! queues. What it holds dies with the process, and it says so in its
//! [`Capabilities`](longshore_core::Capabilities). Its [`MemoryStore`] serves other brokers, too.
//!
//! It spawns no task and reads no clock of its own: a source is polled against the shared state with
//! one timer, so a simulation that holds time and ids sees one history per seed.

mod address;
mod admin;
mod alarm;
mod book;
mod broker;
mod claims;
mod dead_letters;
mod delay;
mod entry;
mod inbox;
mod lane;
mod locks;
mod mark;
mod marks;
mod membership;
mod page;
mod partition;
mod partition_settler;
mod partition_source;
mod place;
mod publish;
mod queue;
mod reply;
mod session_state;
mod sessions;
mod settler;
mod source;
mod state;
mod store;
mod topology;
mod transport;

use std::sync::Arc;

use longshore_core::{ConnectOptions, Result, Transport};

pub use broker::MemoryBroker;
pub use store::MemoryStore;

/// Opens a transport to a broker in this process.
///
/// `memory:` is a fresh broker that nobody else can reach. `memory:orders` is the broker of that
/// name: everybody who names it gets the same one, for as long as anybody keeps a transport or a
/// source of it. The clock of whoever names it first is the broker's clock.
///
/// ```
/// # fn main() -> longshore_core::Result<()> {
/// let transport = longshore_memory::connect("memory:", Default::default())?;
/// assert_eq!(transport.system(), "memory");
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Invalid`](longshore_core::ErrorKind::Invalid) for another scheme or a name that breaks
/// the rules of [`Name`](longshore_core::Name), [`ErrorKind::Full`](longshore_core::ErrorKind::Full)
/// where 1,024 named brokers live already.
pub fn connect(url: &str, options: ConnectOptions) -> Result<Arc<dyn Transport>> {
    Ok(address::broker(url, &options)?.open())
}
