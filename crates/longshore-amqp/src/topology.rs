//! Declares queues and topics, or checks that they are there. The arguments are frozen: changing
//! one would be a 406 for everybody who has declared before.

mod sessions;

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use longshore_core::{Declare, Error, ErrorKind, Part, Result, Topology};

pub(crate) use self::sessions::numbers;
use crate::{
    convert::long,
    delay::{self, Ladder},
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

/// How long what nobody takes stays in a cell: only a process that died, or has just begun to
/// consume, leaves anything there.
const CELL_PATIENCE: i64 = 1_000;
/// How long an empty cell outlives its process.
const CELL_REST: i64 = 60 * 60 * 1_000;

/// The arguments of the queue where the suspects of one process lie while they run: what nobody holds
/// there goes back to the quarantine.
pub(crate) fn cell(quarantine: &str) -> FieldTable {
    let mut table = consumed(quarantine);
    table.insert(
        "x-message-ttl".into(),
        AMQPValue::LongLongInt(CELL_PATIENCE),
    );
    table.insert("x-expires".into(), AMQPValue::LongLongInt(CELL_REST));
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

/// What cannot be kept is refused, never ignored.
pub(crate) fn check(topology: &Topology) -> Result<()> {
    let partitions = topology.partitions;
    let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
    if partitions > 0 && !(partitions.is_power_of_two() && partitions <= 256) {
        return invalid(format!(
            "the number of partitions is a power of two up to 256, not {partitions}"
        ));
    }
    if partitions > 0 && !topology.lanes.is_empty() {
        return invalid("a queue has lanes or sessions, not both".to_owned());
    }
    let count = topology.lanes.len();
    if count > usize::from(u8::MAX) {
        return invalid(format!("a queue has at most 255 lanes, not {count}"));
    }
    for lane in &topology.lanes {
        names::lane_name(lane)?;
        let bytes = names::lane(&topology.queue, lane).len();
        if bytes > delay::LONGEST_ADDRESS {
            let most = delay::LONGEST_ADDRESS;
            return invalid(format!(
                "the queue of the lane \"{lane}\" would have a name of {bytes} bytes, a delay can end in one of {most}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use longshore_core::Name;

    use super::*;

    #[test]
    fn a_lane_whose_queue_no_delay_can_name_is_refused() {
        let name = |length| Name::new("x".repeat(length)).expect("a name");
        for (queue, lane, kept) in [(128, 64, true), (128, 65, false), (65, 128, false)] {
            let mut topology = Topology::new(name(queue));
            topology.lanes.push(name(lane));
            let checked = check(&topology);
            assert_eq!(checked.is_ok(), kept, "{queue} {lane}");
            let physical = names::lane(&topology.queue, &topology.lanes[0]);
            let (_, key) = Ladder::route(delay::LONGEST, &physical).expect("a route");
            assert_eq!(key.len() <= 255, kept, "{queue} {lane}");
        }
    }
}
