//! Declares queues and topics, or checks that they are there. The arguments are frozen: changing
//! one would be a 406 for everybody who has declared before.

mod sessions;

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use longshore_core::{Declare, Part, Result, Topology};

pub(crate) use self::sessions::numbers;
use crate::{
    convert::long,
    delay::Ladder,
    fan_out, names,
    objects::{declare_queue, lasting},
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
    let queue = &topology.queue;
    let (dead, quarantine) = (names::dead(queue), names::quarantine(queue));
    let mut consumable = vec![quarantine];
    for lane in 0..=u8::try_from(topology.lanes.len()).unwrap_or(u8::MAX) {
        consumable.push(names::part(topology, Part::Lane(lane))?);
    }
    // The targets before what points at them.
    declare_queue(session, &dead, lasting(), mode).await?;
    for name in &consumable {
        declare_queue(session, name, consumed(&dead), mode).await?;
    }
    if mode == Declare::Create {
        let consumable: Vec<&str> = consumable.iter().map(String::as_str).collect();
        Ladder::bind(session, &consumable).await?;
    }
    match (mode, topology.partitions) {
        (_, 1..) => sessions::declare(session, topology, mode).await,
        (Declare::Create, 0) => fan_out::declare(session, topology).await,
        (Declare::Verify, 0) => fan_out::verify(session, topology).await,
    }
}
