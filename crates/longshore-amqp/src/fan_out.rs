//! How a topic reaches the lanes of each queue bound to it.
//!
//! A topic exchange cannot say "every lane this queue has not", so a queue with lanes has an exchange
//! of its own between the topic and them, and an alternate exchange behind that for the normal lane.

use lapin::{ExchangeKind, types::FieldTable};
use longshore_core::{Envelope, ErrorKind, Result, Topology, partition_of};

use crate::{
    convert::long,
    names,
    objects::{bind, bind_exchange, declare_exchange, unbind, unbind_exchange, verify_topic},
    session::Session,
};

/// What reaches every queue.
const ALL: &str = "#";

/// The routing key of a topic's message: the lane, and with a key the low eight bits of its hash from
/// the highest to the lowest, so that queues can bind to a lane or to a partition.
pub(crate) fn routing_key(envelope: &Envelope) -> String {
    let lane = envelope.priority.as_deref();
    let lane = lane.filter(|lane| names::lane_name(lane).is_ok());
    let mut routing_key = lane.unwrap_or(names::NORMAL).to_owned();
    let Some(key) = &envelope.key else {
        return routing_key;
    };
    let partition = partition_of(key, 256);
    for bit in (0..8).rev() {
        let set = partition >> bit & 1 == 1;
        routing_key.push_str(if set { ".1" } else { ".0" });
    }
    routing_key
}

/// Whether the topics of this queue are there, and what stands between them and its lanes.
///
/// # Errors
/// [`ErrorKind::NoSuchQueue`].
pub(crate) async fn verify(session: &Session, topology: &Topology) -> Result<()> {
    for topic in &topology.topics {
        verify_topic(session, topic).await?;
    }
    if !topology.topics.is_empty() && !topology.lanes.is_empty() {
        verify_topic(session, &names::lanes(&topology.queue)).await?;
    }
    Ok(())
}

/// Makes the topics of this queue and binds it to them. Doing it again changes nothing, and whoever
/// does it last decides whether the queue has lanes: until all do it alike, a message can arrive
/// twice but is never lost, because what is new is bound before what was is unbound.
pub(crate) async fn declare(session: &Session, topology: &Topology) -> Result<()> {
    let (queue, none) = (&topology.queue, FieldTable::default);
    if topology.topics.is_empty() {
        return Ok(());
    }
    let lanes = names::lanes(queue);
    if !topology.lanes.is_empty() {
        declare_lanes(session, topology, &lanes).await?;
    }
    for topic in &topology.topics {
        declare_exchange(session, topic, ExchangeKind::Topic, none()).await?;
        if topology.lanes.is_empty() {
            bind(session, queue, topic, ALL).await?;
            leave_lanes(session, queue, topic).await?;
        } else {
            bind_exchange(session, &lanes, topic, ALL).await?;
            unbind(session, queue, topic, ALL).await?;
        }
    }
    Ok(())
}

/// Unbinds what a queue without sessions has bound.
pub(crate) async fn leave(session: &Session, queue: &str, topic: &str) -> Result<()> {
    unbind(session, queue, topic, ALL).await?;
    leave_lanes(session, queue, topic).await
}

async fn leave_lanes(session: &Session, queue: &str, topic: &str) -> Result<()> {
    match unbind_exchange(session, &names::lanes(queue), topic, ALL).await {
        // Whoever may not touch that exchange never had lanes.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NoSuchQueue) => Ok(()),
        answer => answer,
    }
}

async fn declare_lanes(session: &Session, topology: &Topology, lanes: &str) -> Result<()> {
    let queue = &topology.queue;
    let rest = names::rest(queue);
    declare_exchange(session, &rest, ExchangeKind::Fanout, FieldTable::default()).await?;
    bind(session, queue, &rest, "").await?;
    let mut arguments = FieldTable::default();
    arguments.insert("alternate-exchange".into(), long(&rest));
    declare_exchange(session, lanes, ExchangeKind::Topic, arguments).await?;
    for lane in &topology.lanes {
        // `#` is also nothing at all.
        let key = format!("{lane}.#");
        bind(session, &names::lane(queue, lane), lanes, &key).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_key_is_the_lane_and_the_low_bits_of_the_key() {
        let of = |priority: Option<&str>, key: Option<&str>| {
            let mut envelope = Envelope::default();
            envelope.priority = priority.map(Into::into);
            envelope.key = key.map(Into::into);
            routing_key(&envelope)
        };
        assert_eq!(of(None, None), "normal");
        assert_eq!(of(Some("high"), None), "high");
        // The hash of "a" ends in 0x8c.
        assert_eq!(of(Some("high"), Some("a")), "high.1.0.0.0.1.1.0.0");
        // What is no lane's name never looks like one with something behind it.
        assert_eq!(of(Some("high.x"), None), "normal");
        assert_eq!(of(Some("#"), Some("a")), "normal.1.0.0.0.1.1.0.0");
    }
}
