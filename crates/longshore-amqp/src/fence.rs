//! A message that is none: whoever takes over a queue publishes one and waits for its confirm before
//! it consumes.
//!
//! Right after a restart, or the death of a node, a queue without a leader tells of no consumers and
//! puts a new one aside until it has a leader, and then before it notices that the old one is gone:
//! what that held comes behind what is new (seen on 3.10.8). A confirm comes from a leader, which by
//! then has looked after the consumers it inherited.

use lapin::{BasicProperties, types::ShortString};
use longshore_core::{Envelope, Ownership, Result};

use crate::{
    convert::{PERSISTENT, short},
    publisher::Letter,
};

const KIND: &str = "longshore.fence";

/// A fence for this queue.
pub(crate) fn letter(queue: &str, ownership: Ownership) -> Result<Letter> {
    Ok(Letter {
        exchange: ShortString::default(),
        routing_key: short("queue name", queue)?,
        mandatory: true,
        properties: BasicProperties::default()
            .with_type(KIND.into())
            .with_delivery_mode(PERSISTENT)
            // What comes back as unroutable is told by its id.
            .with_message_id(format!("fence-{}", ownership.token).into()),
        body: Default::default(),
    })
}

/// Whether this is one: it is acknowledged, and nobody sees it.
pub(crate) fn is_fence(envelope: &Envelope) -> bool {
    &*envelope.kind == KIND
}
