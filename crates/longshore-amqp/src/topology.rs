//! Declares queues and topics, or checks that they are there. The arguments are frozen: changing
//! one would be a 406 for everybody who has declared before.

use std::time::Duration;

use lapin::{
    ExchangeKind,
    types::{AMQPValue, FieldTable},
};
use longshore_core::{Declare, Part, Result, Topology};

use crate::{
    convert::long,
    delay::Ladder,
    names,
    objects::{bind, declare_exchange, declare_queue, lasting, verify_topic},
    session::Session,
};

/// Honoured from 3.12 on, ignored before.
pub(crate) const CONSUMER_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Settlements are copied, confirmed and acknowledged within this part of the time-out.
pub(crate) const OLD_CONSUMER_TIMEOUT: Duration = Duration::from_secs(25 * 60);

/// The arguments of a queue that is consumed: what is rejected there goes whole to `dead`.
fn consumed(dead: &str) -> FieldTable {
    let mut table = lasting();
    let timeout = i64::try_from(CONSUMER_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
    table.insert("x-dead-letter-exchange".into(), long(""));
    table.insert("x-dead-letter-routing-key".into(), long(dead));
    table.insert("x-dead-letter-strategy".into(), long("at-least-once"));
    table.insert("x-overflow".into(), long("reject-publish"));
    table.insert("x-consumer-timeout".into(), AMQPValue::LongLongInt(timeout));
    table
}

/// Declares or verifies all that belongs to a queue.
///
/// # Errors
/// `TopologyDiffers` with what differs, `NoSuchQueue` where something is missing and may
/// not be created.
pub(crate) async fn declare(session: &Session, topology: &Topology, mode: Declare) -> Result<()> {
    let queue = names::part(topology, Part::Lane(0))?;
    let (dead, quarantine) = (names::dead(&queue), names::quarantine(&queue));
    // The targets before what points at them.
    declare_queue(session, &dead, lasting(), mode).await?;
    for name in [&quarantine, &queue] {
        declare_queue(session, name, consumed(&dead), mode).await?;
    }
    if mode == Declare::Verify {
        for topic in &topology.topics {
            verify_topic(session, topic).await?;
        }
        return Ok(());
    }
    Ladder::bind(session, &[&queue, &quarantine]).await?;
    for topic in &topology.topics {
        declare_topic(session, topic).await?;
        bind(session, &queue, topic, "#").await?;
    }
    Ok(())
}

async fn declare_topic(session: &Session, topic: &str) -> Result<()> {
    declare_exchange(session, topic, ExchangeKind::Topic, FieldTable::default()).await
}
