//! Longshore's transport over Redis Streams: Redis 7.0 and later, Valkey 8 and later; one server, a
//! master behind sentinels, or a cluster.
//!
//! What a message looks like there is public: `docs/wire.md`. A service takes the `longshore` crate
//! with its feature `redis` and never names this one.
//!
//! A delivery is a pending entry of the group `longshore`; its lock is the entry's idle time. The
//! delivery count of an entry means starts of a handler: a first read is 1, and every later start
//! is written before it happens. All that changes more than one key is one Lua script.

mod address;
mod admin;
mod convert;
mod dead_letters;
mod delay;
mod entry;
mod failure;
mod figures;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod inbox;
mod lane;
mod lease;
mod link;
mod locks;
mod mark;
mod membership;
mod meta;
mod names;
mod partition;
mod publisher;
mod reader;
mod scripts;
mod server;
mod settlement;
mod settler;
mod site;
mod source;
mod spread;
mod store;
mod takeover;
mod tls;
mod topics;
mod topology;
mod transport;

use std::sync::Arc;

use longshore_core::{ConnectOptions, Result, Store, Transport};

/// Connects to `redis://`, `rediss://`, `redis+cluster://host,host` or
/// `redis+sentinel://host,host/master-name`, with TLS as `rediss+…`.
///
/// Credentials in the URL are percent-encoded. The path is the number of the database. TLS verifies
/// chain and host name against the authorities of the options, or the system's. Without TLS a
/// password goes to this machine only, unless the options allow it, whoever names the server: the
/// URL, a sentinel or a node of the cluster.
///
/// # Errors
/// [`Invalid`](longshore_core::ErrorKind::Invalid) for a URL that breaks a rule, for authorities
/// that are none and for a password that would cross the network unencrypted,
/// [`Denied`](longshore_core::ErrorKind::Denied) where credentials or certificate are refused,
/// [`Unavailable`](longshore_core::ErrorKind::Unavailable) where no server answers within the
/// connection time-out, [`Unsupported`](longshore_core::ErrorKind::Unsupported) for servers that
/// are too old.
pub async fn connect(url: &str, options: ConnectOptions) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(
        transport::RedisTransport::connect(url, options).await?,
    ))
}

/// Opens a store of dedup marks and session state by itself, to be used beside a broker that keeps
/// none. A transport over Redis has its own: [`Transport::store`].
///
/// It is shared by everybody who opens it with the same prefix. Its keys begin with the prefix of the
/// options followed by `:store`, so that none is one of a queue on the same server.
///
/// # Errors
/// As [`connect`].
pub async fn open_store(url: &str, options: ConnectOptions) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(store::RedisStore::open(url, options).await?))
}
