//! Messages to publish and how to see that they are the same on arrival.

use std::time::{Duration, SystemTime};

use longshore_core::{
    Destination, Envelope, Ids, Name, Outgoing, Part, RandomIds, Text, Topology, partition_of,
};

/// A message with an id and this body.
pub(crate) fn message(body: impl Into<Vec<u8>>) -> Envelope {
    let mut envelope = Envelope::new("conformance.message", body.into());
    envelope.id = RandomIds.text();
    envelope.sent_at = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    envelope
}

/// Messages whose bodies are their numbers.
pub(crate) fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = Envelope> {
    range.map(|number| message(number.to_string()))
}

/// The number of a [`numbered`] message.
pub(crate) fn number(envelope: &Envelope) -> usize {
    let text = std::str::from_utf8(&envelope.body).unwrap_or_default();
    text.parse().unwrap_or(usize::MAX)
}

/// A message that uses every field a transport has to carry.
pub(crate) fn laden() -> Envelope {
    let mut envelope = message((0..=255).collect::<Vec<u8>>());
    envelope.content_type = "application/x-laden".into();
    envelope.key = Some("customer-42/ü".into());
    envelope.correlation_id = Some("correlation-7".into());
    envelope.expires_at = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(4_000_000_000_456));
    let headers = [
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=1,other=2"),
        ("empty", ""),
        ("Ünïcode name", "välue ✓"),
        ("spaces", "  kept  "),
        ("quoted", "\"a\\b\"\r\nline"),
    ];
    for (name, value) in headers {
        let value = value.as_bytes().to_vec().into();
        envelope.headers.push((name.into(), value));
    }
    envelope
}

/// A message on its way to the normal lane.
pub(crate) fn to(topology: &Topology, envelope: Envelope) -> Outgoing {
    Outgoing {
        to: Destination::Queue(topology.queue.clone(), Part::Lane(0)),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

/// Messages on their way to the normal lane.
pub(crate) fn all_to(
    topology: &Topology,
    envelopes: impl IntoIterator<Item = Envelope>,
) -> Vec<Outgoing> {
    let outgoing = envelopes.into_iter().map(|envelope| to(topology, envelope));
    outgoing.collect()
}

/// A message on its way to the normal lane, later.
pub(crate) fn later(topology: &Topology, envelope: Envelope, delay: Duration) -> Outgoing {
    Outgoing {
        delay,
        ..to(topology, envelope)
    }
}

/// A message on its way to a lane, under that lane's name.
pub(crate) fn to_lane(topology: &Topology, lane: u8, mut envelope: Envelope) -> Outgoing {
    envelope.priority = topology.lane(lane).map(|name| name.as_str().into());
    Outgoing {
        to: Destination::Queue(topology.queue.clone(), Part::Lane(lane)),
        ..to(topology, envelope)
    }
}

/// A message on its way to every queue bound to a topic.
pub(crate) fn to_topic(topic: &Name, envelope: Envelope) -> Outgoing {
    Outgoing {
        to: Destination::Topic(topic.clone()),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

/// This partition of a queue with sessions.
pub(crate) fn partition(topology: &Topology, index: u16) -> Part {
    Part::Partition {
        index,
        of: topology.partitions,
    }
}

/// Different keys that all live in this partition.
pub(crate) fn keys_in(topology: &Topology, index: u16) -> impl Iterator<Item = Text> {
    let of = topology.partitions;
    let keys = (0..).map(|number: u64| Text::from(format!("customer-{number}")));
    keys.filter(move |key| partition_of(key, of) == index)
}

/// A message of this session on its way to the partition of its key.
pub(crate) fn to_session(topology: &Topology, key: &Text, mut envelope: Envelope) -> Outgoing {
    envelope.key = Some(key.clone());
    let part = partition(topology, partition_of(key, topology.partitions));
    Outgoing {
        to: Destination::Queue(topology.queue.clone(), part),
        ..to(topology, envelope)
    }
}

/// [`numbered`] messages of three sessions in turn on their way to one partition.
pub(crate) fn all_to_partition(
    topology: &Topology,
    index: u16,
    range: std::ops::Range<usize>,
) -> Vec<Outgoing> {
    let keys: Vec<_> = keys_in(topology, index).take(3).collect();
    let sessions = keys.iter().cycle();
    numbered(range)
        .zip(sessions)
        .map(|(envelope, key)| to_session(topology, key, envelope))
        .collect()
}

/// Ends the case unless both are the same message. Headers may come in another order.
#[track_caller]
pub(crate) fn assert_same(sent: &Envelope, arrived: &Envelope) {
    assert_eq!(sent.id, arrived.id, "the id");
    assert_eq!(sent.kind, arrived.kind, "the type");
    assert!(
        sent.body == arrived.body,
        "the body differs: {sent:?}, {arrived:?}"
    );
    assert_eq!(
        content_type(sent),
        content_type(arrived),
        "the content type"
    );
    assert_eq!(sent.key, arrived.key, "the key");
    assert_eq!(sent.priority, arrived.priority, "the priority");
    assert_eq!(
        sent.correlation_id, arrived.correlation_id,
        "the correlation id"
    );
    assert_eq!(sent.reply_to, arrived.reply_to, "the reply address");
    assert_eq!(sent.sent_at, arrived.sent_at, "the time it was sent");
    assert_eq!(sent.expires_at, arrived.expires_at, "the time it expires");
    let (mut before, mut after) = (sent.headers.clone(), arrived.headers.clone());
    before.sort();
    after.sort();
    assert_eq!(before, after, "the headers");
}

fn content_type(envelope: &Envelope) -> &str {
    match &*envelope.content_type {
        "" => "application/json",
        other => other,
    }
}
