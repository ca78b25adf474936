//! What the fuzz targets of this workspace reach in here. Not part of the public interface: only the
//! feature `fuzzing` builds it, and it changes without notice.

use bytes::Bytes;
use longshore_core::{
    ConnectOptions, Defect, Envelope, Limits, Name, Part, Result, Standing, Topology,
};
use redis::Value;

use crate::{
    address::{Address, Host},
    convert,
    dead_letters::{self, LetterId},
    entry, failure,
    meta::Meta,
    names::{self, Keys},
    site, store,
};

/// The fields of an entry, in order.
pub type Fields = Vec<(Bytes, Bytes)>;

/// What an entry says.
#[derive(Debug)]
pub struct Read {
    /// What travelled.
    pub envelope: Envelope,
    /// Starts used up by earlier copies.
    pub attempts: u32,
    /// How it stands to the dedup window.
    pub standing: Standing,
    /// Why no handler may see it.
    pub defect: Option<Box<Defect>>,
}

/// Reads an entry, as a message or as a reply.
pub fn read(fields: &[(Bytes, Bytes)], limits: &Limits, reply_prefix: &str, reply: bool) -> Read {
    let read = match reply {
        false => convert::read(fields, limits, reply_prefix),
        true => convert::read_reply(fields, limits, reply_prefix),
    };
    Read {
        envelope: read.envelope,
        attempts: read.attempts,
        standing: read.standing,
        defect: read.defect,
    }
}

/// Reads an entry for an operator.
pub fn read_unjudged(fields: &[(Bytes, Bytes)], reply_prefix: &str) -> Envelope {
    convert::read_unjudged(fields, reply_prefix)
}

/// The fields of an envelope.
pub fn written(envelope: &Envelope) -> Fields {
    let mut fields = Vec::new();
    convert::write(envelope, |name, value| {
        fields.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
    });
    fields
}

/// An envelope as a member of the delayed set.
pub fn packed(envelope: &Envelope, hold: Option<&str>, name: &str, part: &str) -> Vec<u8> {
    convert::pack(envelope, hold, name, part)
}

/// The strings of a packed value.
pub fn unpacked(packed: &Bytes) -> Option<Vec<Bytes>> {
    convert::unpack(packed)
}

/// The original fields of a dead letter, and ours.
pub fn dead_letter(fields: Fields) -> (Fields, Fields) {
    dead_letters::split(fields)
}

/// The id of a dead letter, read and shown again.
pub fn letter_id(text: &str) -> Option<String> {
    LetterId::parse(text).map(|id| id.to_string())
}

/// Gives octets of a server to everything that reads replies. Answers the entries found there.
pub fn replies(octets: &[u8]) -> Vec<Fields> {
    let Ok(value) = redis::parse_redis_value(octets) else {
        return Vec::new();
    };
    let _ = Meta::parse(value.clone());
    let _ = entry::pending(value.clone());
    let _ = entry::lookup(&value, "version");
    let _ = store::mark(value.clone());
    if let Some(asked) = Host::new("localhost", 6379) {
        let _ = site::slot_range(value.clone(), &asked);
    }
    let fields = |entries: Vec<entry::Entry>| entries.into_iter().map(|entry| entry.fields);
    let found = fields(entry::entries(value.clone()));
    let found = found.chain(fields(entry::read_reply(value)));
    found.collect()
}

/// What is told of an error a server answered with.
pub fn refusal(octets: &[u8]) -> Option<String> {
    match redis::parse_redis_value(octets) {
        Ok(Value::ServerError(error)) => Some(failure::refused(&error).to_string()),
        _ => None,
    }
}

/// Everything that is ever shown of an address, and what is told of a server that says this.
///
/// # Errors
/// As `connect`.
pub fn address(url: &str, options: &ConnectOptions, said: &str) -> Result<Vec<String>> {
    let address = Address::parse(url, options)?;
    let mut shown = vec![format!("{address:?} {address:#?}"), address.scrub(said)];
    let error = std::io::Error::other(said.to_owned()).into();
    shown.push(failure::unreachable(&address, &error).to_string());
    shown.push(failure::unanswered(&address, &error).to_string());
    for host in &address.hosts {
        shown.push(format!("{host} {host:?}"));
        if let Err(error) = address.login_at(host) {
            shown.push(format!("{error} {error:?}"));
        }
    }
    Ok(shown)
}

/// The keys of a part of a declared queue, with those of this id and this session key.
///
/// # Errors
/// The queue has no such part.
pub fn keys(
    prefix: &str,
    topology: &Topology,
    part: Part,
    id: &str,
    key: &str,
) -> Result<Vec<String>> {
    let keys = Keys::of(prefix, topology, part)?;
    let mut all = vec![keys.stream.clone()];
    // The lanes share all but their streams.
    if !matches!(part, Part::Lane(1..)) {
        all.extend([
            keys.delayed(),
            keys.dead(),
            keys.wake(),
            keys.meta(),
            keys.lease(),
            keys.token(),
            keys.forwarder(),
            keys.mark(None, id),
            keys.mark(Some(key), id),
            keys.state(key),
        ]);
    }
    Ok(all)
}

/// The keys of the workers of a queue with partitions.
pub fn worker_keys(prefix: &str, topology: &Topology) -> Vec<String> {
    let keys = Keys::workers(prefix, &topology.queue, topology.partitions);
    vec![keys.members(), keys.seat("00")]
}

/// The name of the physical queue of a part.
///
/// # Errors
/// The queue has no such part.
pub fn physical(topology: &Topology, part: Part) -> Result<String> {
    Ok(Keys::of("ls", topology, part)?.physical())
}

/// The key of a topic and its slot.
pub fn topic_key(prefix: &str, topic: &Name) -> (String, u16) {
    names::topic_key(prefix, topic)
}

/// The slot of a hash tag.
pub fn slot(tag: &[u8]) -> u16 {
    names::slot(tag)
}

/// Whether a key may begin with this.
pub fn is_prefix(prefix: &str) -> bool {
    names::check_prefix(prefix).is_ok()
}

/// Whether a reply may be written there, by the clients of this prefix.
pub fn may_reply_to(prefix: &str, address: &str) -> bool {
    names::is_reply_address(&names::reply_prefix(prefix), address)
}
