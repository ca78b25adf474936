//! The names of keys, as the public wire format has them.

use longshore_core::{Error, ErrorKind, Name, Part, Result};

/// Our consumer group, the only one on a stream.
pub(crate) const GROUP: &str = "longshore";
/// The consumer that holds what was given back and waits for anybody.
pub(crate) const RETURNED: &str = "_returned";

/// The keys of one physical queue. They share a hash tag and so a slot.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) stream: String,
    pub(crate) delayed: String,
    pub(crate) dead: String,
    pub(crate) wake: String,
    pub(crate) slot: u16,
}

impl Keys {
    pub(crate) fn new(prefix: &str, queue: &Name) -> Self {
        let key = |what: &str| format!("{prefix}:{{{queue}}}:{what}");
        Self {
            stream: key("stream"),
            delayed: key("delayed"),
            dead: key("dead"),
            wake: key("wake"),
            slot: slot(queue.as_bytes()),
        }
    }
}

/// The set of queues bound to a topic, and its slot.
pub(crate) fn topic_key(prefix: &str, topic: &Name) -> (String, u16) {
    (
        format!("{prefix}:topic:{{{topic}}}"),
        slot(topic.as_bytes()),
    )
}

/// What every reply address begins with.
pub(crate) fn reply_prefix(prefix: &str) -> String {
    format!("{prefix}:reply:")
}

/// Only the normal lane exists so far.
pub(crate) fn supported(part: Part) -> Result<()> {
    match part {
        Part::Lane(0) => Ok(()),
        Part::Lane(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "this transport has no priority lanes yet",
        )),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "this transport has no partitions yet",
        )),
    }
}

/// The prefix goes into every key, so it must neither move the hash tag nor hide in a pattern.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    if (1..=64).contains(&prefix.len()) && prefix.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        "the key prefix must have 1 to 64 characters of [A-Za-z0-9._:-]",
    ))
}

/// The slot of a hash tag: CRC16 (XMODEM) modulo 16384
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        // `redis-cli cluster keyslot foo` answers 12182.
        assert_eq!(slot(b"foo"), 12182);
    }

    #[test]
    fn keys_are_those_of_the_wire_format() {
        let keys = Keys::new("ls", &Name::new("orders").expect("name"));
        assert_eq!(keys.stream, "ls:{orders}:stream");
        assert_eq!(keys.delayed, "ls:{orders}:delayed");
        assert_eq!(
            topic_key("ls", &Name::new("placed").expect("name")).0,
            "ls:topic:{placed}"
        );
    }
}
