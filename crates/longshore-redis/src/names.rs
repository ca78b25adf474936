//! The names of keys, as the public wire format has them.

use longshore_core::{Error, ErrorKind, Name, Part, Result, Text, Topology, mark_name};

/// Our consumer group, the only one on a stream.
pub(crate) const GROUP: &str = "longshore";
/// The consumer that holds what was given back and waits for anybody.
pub(crate) const RETURNED: &str = "_returned";

/// The keys of one part of a queue. All parts that share a scope (the lanes of a queue, or one
/// partition) share a hash tag and so a slot.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// What tells ids and sessions apart, and the hash tag: `orders`, or `orders.s16.03`.
    pub(crate) scope: Text,
    /// What sets a lane apart in its keys: `p.high:`, or nothing.
    pub(crate) part: String,
    pub(crate) stream: String,
    pub(crate) slot: u16,
    base: String,
}

impl Keys {
    /// Of the normal lane of a queue, or of a partition.
    pub(crate) fn new(prefix: &str, scope: &str) -> Self {
        let base = format!("{prefix}:{{{scope}}}:");
        Self {
            scope: scope.into(),
            part: String::new(),
            stream: format!("{base}stream"),
            slot: slot(scope.as_bytes()),
            base,
        }
    }

    /// Of the workers of a queue with so many partitions.
    pub(crate) fn workers(prefix: &str, queue: &str, partitions: u16) -> Self {
        Self::new(prefix, &format!("{queue}.s{partitions}"))
    }

    /// Of the lane of this name, beside the normal one.
    pub(crate) fn lane(prefix: &str, queue: &str, lane: &str) -> Self {
        let mut keys = Self::new(prefix, queue);
        keys.part = format!("p.{lane}:");
        keys.stream = format!("{}{}stream", keys.base, keys.part);
        keys
    }

    /// Of a part of a declared queue.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a lane that the queue does not have.
    pub(crate) fn of(prefix: &str, topology: &Topology, part: Part) -> Result<Self> {
        match part {
            Part::Lane(lane @ 1..) => match topology.lane(lane) {
                Some(name) => Ok(Self::lane(prefix, &topology.queue, name)),
                None => Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the queue {} has no lane {lane}", topology.queue),
                )),
            },
            _ => Ok(Self::new(prefix, &topology.scope(part))),
        }
    }

    /// The name of the physical queue: `orders`, `orders.p.high` or `orders.s16.03`.
    pub(crate) fn physical(&self) -> String {
        let part = self.part.strip_suffix(':').unwrap_or_default();
        let dot = if part.is_empty() { "" } else { "." };
        format!("{}{dot}{part}", self.scope)
    }

    /// What every key of this scope begins with: `ls:{orders}:`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn delayed(&self) -> String {
        self.key("delayed")
    }

    pub(crate) fn dead(&self) -> String {
        self.key("dead")
    }

    pub(crate) fn wake(&self) -> String {
        self.key("wake")
    }

    /// What the queue is made of, for those who only know its name.
    pub(crate) fn meta(&self) -> String {
        self.key("meta")
    }

    /// What is known of an id in the dedup window.
    pub(crate) fn mark(&self, key: Option<&str>, id: &str) -> String {
        self.mark_named(&mark_name(key, id))
    }

    /// The same for a name that was made before.
    pub(crate) fn mark_named(&self, name: &str) -> String {
        [&self.base, "dedup:", name].concat()
    }

    /// Who owns this partition, with an expiry.
    pub(crate) fn lease(&self) -> String {
        self.key("lease")
    }

    /// The fencing token of its last ownership.
    pub(crate) fn token(&self) -> String {
        self.key("token")
    }

    /// The state of a session.
    pub(crate) fn state(&self, key: &str) -> String {
        [&self.base, "state:", key].concat()
    }

    /// The live workers, under the scope of all partitions.
    pub(crate) fn members(&self) -> String {
        self.key("members")
    }

    /// Who has this seat, under the scope of all partitions.
    pub(crate) fn seat(&self, seat: &str) -> String {
        [&self.base, "seat:", seat].concat()
    }

    /// Who moves messages out of this plain queue. Under its own scope, so that scripts on its
    /// stream can look at it.
    pub(crate) fn forwarder(&self) -> String {
        self.key("forwarder")
    }

    fn key(&self, what: &str) -> String {
        [&self.base, what].concat()
    }
}

/// The field of [`Keys::meta`] that says that there is a lane of this name.
pub(crate) fn lane_field(lane: &str) -> String {
    format!("p.{lane}")
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

/// Whether replies may be written there. Whoever asks chooses it, so it must be no key that anybody
/// else has, whatever prefixes others use.
pub(crate) fn is_reply_address(reply_prefix: &str, address: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let name = address.strip_prefix(reply_prefix);
    name.is_some_and(|name| (1..=128).contains(&name.len()) && name.bytes().all(fits))
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
pub(crate) fn slot(tag: &[u8]) -> u16 {
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
        let mut topology = Topology::new(Name::new("orders").expect("name"));
        topology.lanes = vec![Name::new("high").expect("name")];
        let of = |part| Keys::of("ls", &topology, part).expect("keys");
        let keys = of(Part::Lane(0));
        assert_eq!(keys.stream, "ls:{orders}:stream");
        assert_eq!(
            (keys.delayed(), keys.physical()),
            ("ls:{orders}:delayed".to_owned(), "orders".to_owned())
        );
        let lane = of(Part::Lane(1));
        assert_eq!(lane.stream, "ls:{orders}:p.high:stream");
        assert_eq!(
            (lane.dead(), lane.slot, lane.physical()),
            (keys.dead(), keys.slot, "orders.p.high".to_owned())
        );
        assert!(Keys::of("ls", &topology, Part::Lane(2)).is_err());
        let partition = of(Part::Partition { index: 3, of: 16 });
        assert_eq!(partition.stream, "ls:{orders.s16.03}:stream");
        assert_eq!(
            topic_key("ls", &Name::new("placed").expect("name")).0,
            "ls:topic:{placed}"
        );
    }
}
