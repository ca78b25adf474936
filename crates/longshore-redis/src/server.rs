//! What kind of server this is, and what it promises.

use longshore_core::{Error, ErrorKind, Result};
use redis::Value;

use crate::{
    entry::{lookup, text},
    failure::Broken,
    link::Links,
    site::Site,
};

/// Looks at what the server is and promises; says what an operator should know. Answers whether
/// what it confirms survives a restart.
pub(crate) async fn inspect(site: &Site, links: &Links) -> Result<bool> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("HELLO");
    pipeline.cmd("CONFIG").arg("GET").arg("appendonly");
    pipeline.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
    let replies = links
        .exchange(0, &pipeline, site.options.confirm_timeout)
        .await;
    let mut replies = replies.map_err(Broken::into_error)?.into_iter();
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let hello = next();
    let version = lookup(&hello, "version")
        .cloned()
        .and_then(text)
        .unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("Redis 7.0 or Valkey 8 is needed, this server is {version}"),
        ));
    }
    let setting = |reply: Value, name: &str| lookup(&reply, name).cloned().and_then(text);
    let appendonly = setting(next(), "appendonly");
    let policy = setting(next(), "maxmemory-policy");
    let durable = appendonly.as_deref() != Some("no");
    if !durable {
        tracing::warn!("appendonly is off: a restart of Redis loses messages; set appendonly yes");
    }
    if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
        tracing::warn!(%policy, "under memory pressure Redis deletes queues; set maxmemory-policy noeviction");
    }
    if appendonly.is_none() {
        tracing::info!(
            "this user may not read the server's configuration: its durability is unknown"
        );
    }
    Ok(durable)
}
