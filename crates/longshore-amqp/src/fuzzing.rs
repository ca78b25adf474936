//! What the fuzz targets of this workspace reach in here. Not part of the public interface: only the
//! feature `fuzzing` builds it, and it changes without notice.

use std::time::SystemTime;

use lapin::BasicProperties;
use longshore_core::{
    Claim, ConnectOptions, Delivery, Envelope, Limits, Part, Reason, Receipt, Result, Topology,
};

pub use crate::guard::fuzzing::{Guard, judge};
use crate::{
    address::{Address, Query},
    convert, copy,
    delay::{self, Ladder},
    marker::Marker,
    names,
    reply_rule::ReplyRule,
    topology,
};

/// How a delivery was received.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The header by which the guard tells a defect.
    pub marker: &'a str,
    /// The header by which the broker counts returns.
    pub counter: Option<&'a str>,
    /// Where replies may go beside the broker's own addresses.
    pub reply_prefix: Option<&'a str>,
    /// When it was received.
    pub now: SystemTime,
}

/// A delivery as a source hands it out.
pub fn delivery(
    properties: BasicProperties,
    body: Vec<u8>,
    arrival: &Arrival<'_>,
    limits: &Limits,
) -> Delivery {
    let replies = ReplyRule {
        prefix: arrival.reply_prefix.map(Into::into),
    };
    let Arrival {
        marker,
        counter,
        now,
        ..
    } = *arrival;
    let receipt = Receipt {
        scope: 0,
        tag: [0; 2],
    };
    convert::arrived(properties, body, marker, counter, &replies, now).delivery(
        receipt,
        Part::Lane(0),
        limits,
    )
}

/// The properties of a message that is published for the first time.
///
/// # Errors
/// AMQP cannot carry it.
pub fn first(envelope: &Envelope) -> Result<BasicProperties> {
    convert::first(envelope)
}

/// The properties of a copy that has used up so many starts.
///
/// # Errors
/// It must be moved, not copied.
pub fn again(envelope: &Envelope, attempts: u32) -> Result<BasicProperties> {
    copy::again(envelope, attempts)
}

/// What a redrive sends back.
pub fn restored(dead: &BasicProperties, user: &str) -> BasicProperties {
    copy::restored(dead, user)
}

/// How many octets the content header frame of these properties takes.
pub fn frame_size(properties: &BasicProperties) -> usize {
    convert::frame_size(properties)
}

/// The properties of the dead letter of a message.
///
/// # Errors
/// It must be moved, not copied.
pub fn dead(
    envelope: &Envelope,
    reason: &Reason,
    detail: &str,
    attempts: u32,
    frame_max: usize,
) -> Result<BasicProperties> {
    let death = copy::Death {
        reason,
        detail,
        attempts,
        queue: "orders",
        at: SystemTime::UNIX_EPOCH,
    };
    copy::dead(envelope, &death, frame_max)
}

/// Reason, detail and attempts of a dead letter.
pub fn obituary(properties: &BasicProperties) -> (Option<Reason>, String, u32) {
    let obituary = copy::obituary(properties);
    (obituary.reason, obituary.detail, obituary.attempts)
}

/// Reads a marker, writes it and reads it again: whether it is the same. `None` where it is no marker,
/// or its numbers are more than a header of ours can hold.
pub fn marker_survives(properties: &BasicProperties) -> Option<bool> {
    let marker = Marker::read(properties)?;
    i64::try_from(marker.token.max(marker.number)).ok()?;
    let letter = marker.letter("orders.s16.03.marker").ok()?;
    Some(Marker::read(&letter.properties).as_ref() == Some(&marker))
}

/// Everything that is ever shown of an address.
///
/// # Errors
/// As `connect`.
pub fn address(url: &str, options: &ConnectOptions) -> Result<Vec<String>> {
    let defaults = Query {
        heartbeat: options.heartbeat,
        allow_plaintext: options.allow_plaintext,
    };
    let address = Address::parse(url, defaults)?;
    let mut shown = vec![
        format!("{address} {address:?} {address:#?}"),
        format!("{:?}", address.credentials),
        format!("{:?}", address.credentials.password),
    ];
    for host in &address.hosts {
        shown.push(format!("{host} {host:?}"));
    }
    Ok(shown)
}

/// The physical queues of a declared queue: those of its parts, then all others.
///
/// # Errors
/// The topology cannot be kept.
pub fn queues(topology: &Topology) -> Result<(Vec<String>, Vec<String>)> {
    let lanes = 0..=u8::try_from(topology.lanes.len()).unwrap_or(u8::MAX);
    let partitions = (0..topology.partitions).map(|index| Part::Partition {
        index,
        of: topology.partitions,
    });
    topology::check(topology)?;
    let parts = lanes.map(Part::Lane).chain(partitions);
    let parts: Vec<String> = parts
        .map(|part| names::part(topology, part))
        .collect::<Result<_>>()?;
    let queue = &topology.queue;
    let mut others = vec![
        names::dead(queue),
        names::quarantine(queue),
        names::lock(queue),
    ];
    if topology.partitions > 0 {
        others.push(names::members(topology));
        others.push(names::claim(topology, Claim::Forwarder)?);
        for index in 0..topology.partitions {
            others.push(names::claim(topology, Claim::Partition(index))?);
            others.push(names::claim(topology, Claim::Seat(index))?);
        }
        let partitions = parts.iter().skip(1 + topology.lanes.len());
        others.extend(partitions.map(|partition| names::marker(partition)));
    }
    Ok((parts, others))
}

/// The exchanges of a declared queue.
pub fn exchanges(topology: &Topology) -> [String; 2] {
    [names::lanes(&topology.queue), names::rest(&topology.queue)]
}

/// The longest routing key of a delay that ends in this queue.
pub fn delayed(physical: &str) -> Option<String> {
    Ladder::route(delay::LONGEST, physical).map(|(_, key)| key)
}

/// Whether a reply may be written there.
pub fn may_reply_to(prefix: Option<&str>, address: &str) -> bool {
    let prefix = prefix.map(Into::into);
    ReplyRule { prefix }.allows(address)
}

/// The routing key of a topic's message.
pub fn topic_routing_key(envelope: &Envelope) -> String {
    crate::fan_out::routing_key(envelope)
}
