//! What things are called on the broker. Frozen as version 1 in `docs/wire.md`.

use longshore_core::{Claim, Error, ErrorKind, Name, Part, Result, Topology, printable};

/// The physical queue of a part.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a lane the topology does not have.
pub(crate) fn part(topology: &Topology, part: Part) -> Result<String> {
    let queue = &topology.queue;
    match part {
        Part::Lane(0) => Ok(queue.to_string()),
        Part::Lane(lane) => match topology.lane(lane) {
            Some(name) => Ok(self::lane(queue, name)),
            None => Err(Error::new(
                ErrorKind::Invalid,
                format!("the queue \"{queue}\" has no lane {lane}"),
            )),
        },
        Part::Partition { index, of } if of.is_power_of_two() && of <= 256 && index < of => {
            Ok(numbered(&sessions(queue, of), index, of))
        }
        Part::Partition { index, of } => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "there is no partition {index} of {of}: their number is a power of two up to 256"
            ),
        )),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("this transport does not know {other:?}"),
        )),
    }
}

/// What the normal lane is called where it needs a name.
pub(crate) const NORMAL: &str = "normal";

/// The name of a lane beside the normal one. It has no dot: it is one word of a routing key, and no
/// other queue may be named like its physical queue.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub(crate) fn lane_name(name: &str) -> Result<Name> {
    if name.contains('.') || name == NORMAL {
        let shown = printable(name, 64);
        let why = format!("a lane cannot be named \"{shown}\": no '.', and not \"{NORMAL}\"");
        return Err(Error::new(ErrorKind::Invalid, why));
    }
    Name::new(name)
}

/// The physical queue of a lane beside the normal one.
pub(crate) fn lane(queue: &str, lane: &str) -> String {
    format!("{queue}{LANE}{lane}")
}

const LANE: &str = ".p.";

/// Which lane of this queue a physical queue is, where it is one beside the normal one.
pub(crate) fn lane_of<'a>(queue: &str, physical: &'a str) -> Option<&'a str> {
    physical.strip_prefix(queue)?.strip_prefix(LANE)
}

/// The exchange that sends each message of a topic to its lane.
pub(crate) fn lanes(queue: &str) -> String {
    format!("longshore.lanes.{queue}")
}

/// The exchange for what no lane takes. No suffix of [`lanes`]: that could be another queue's.
pub(crate) fn rest(queue: &str) -> String {
    format!("longshore.rest.{queue}")
}

/// Where dead letters of a queue wait for an operator.
pub(crate) fn dead(queue: &str) -> String {
    format!("{queue}.dlq")
}

/// Where messages wait that may have killed a process.
pub(crate) fn quarantine(queue: &str) -> String {
    format!("{queue}.quarantine")
}

/// Where the suspects of one process lie while they run.
pub(crate) fn cell(quarantine: &str, process: &str) -> String {
    format!("{quarantine}.{process}")
}

/// Held exclusively by whoever reads or moves dead letters.
pub(crate) fn lock(queue: &str) -> String {
    format!("{queue}.dlq.lock")
}

/// How everything begins that belongs to the sessions of a queue. Their number is part of it, so two
/// numbers never mix.
fn sessions(queue: &str, partitions: u16) -> String {
    format!("{queue}.s{partitions}")
}

fn numbered(prefix: &str, index: u16, of: u16) -> String {
    let digits = of.saturating_sub(1).to_string().len();
    format!("{prefix}.{index:0digits$}")
}

/// Where an owner of this partition leaves word for the next.
pub(crate) fn marker(partition: &str) -> String {
    format!("{partition}.marker")
}

/// Its consumers are the live workers.
pub(crate) fn members(topology: &Topology) -> String {
    format!("{}.members", sessions(&topology.queue, topology.partitions))
}

/// Held exclusively by whoever has this claim.
///
/// # Errors
/// [`ErrorKind::Invalid`] for what the topology does not have.
pub(crate) fn claim(topology: &Topology, claim: Claim) -> Result<String> {
    let (of, sessions) = (
        topology.partitions,
        sessions(&topology.queue, topology.partitions),
    );
    Ok(match claim {
        Claim::Partition(index) => {
            format!("{}.lock", part(topology, Part::Partition { index, of })?)
        }
        Claim::Seat(seat) => format!("{}.lock", numbered(&format!("{sessions}.seat"), seat, of)),
        Claim::Forwarder => format!("{sessions}.lock"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_frozen_name() {
        let mut topology = Topology::new(Name::new("orders").expect("a name"));
        topology.lanes = vec![Name::new("high").expect("a name")];
        let name = |p| part(&topology, p).ok();
        assert_eq!(name(Part::Lane(0)).as_deref(), Some("orders"));
        assert_eq!(name(Part::Lane(1)).as_deref(), Some("orders.p.high"));
        assert_eq!(name(Part::Lane(2)), None);
        for (index, of, expected) in [
            (3, 16, "orders.s16.03"),
            (3, 8, "orders.s8.3"),
            (3, 256, "orders.s256.003"),
            (0, 1, "orders.s1.0"),
        ] {
            let partition = Part::Partition { index, of };
            assert_eq!(name(partition).as_deref(), Some(expected));
        }
        for (index, of) in [(16, 16), (0, 0), (0, 12), (0, 512)] {
            assert_eq!(name(Part::Partition { index, of }), None, "{index} of {of}");
        }
        topology.partitions = 16;
        let claimed = |c| claim(&topology, c).ok();
        for (wanted, expected) in [
            (Claim::Partition(3), Some("orders.s16.03.lock")),
            (Claim::Partition(16), None),
            (Claim::Seat(0), Some("orders.s16.seat.00.lock")),
            (Claim::Forwarder, Some("orders.s16.lock")),
        ] {
            assert_eq!(claimed(wanted).as_deref(), expected);
        }
        assert_eq!(members(&topology), "orders.s16.members");
        assert_eq!(marker("orders.s16.03"), "orders.s16.03.marker");
    }
}
