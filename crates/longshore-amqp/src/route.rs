//! Where a message is published, and what must be there before.

use longshore_core::{
    Destination, Envelope, Error, ErrorKind, Name, Outgoing, Part, Result, Topology,
};

use crate::{
    convert::{first, reply, short},
    delay::{self, Ladder},
    fan_out, names,
    parts::Parts,
    prepared::Need,
    publisher::Letter,
    reply_rule::ReplyRule,
};

/// Where to publish a message, and what must be there before.
pub(crate) fn route(
    outgoing: Outgoing,
    replies: &ReplyRule,
    parts: &Parts,
) -> Result<(Letter, Vec<Need>)> {
    let Outgoing {
        to,
        envelope,
        delay,
        ..
    } = outgoing;
    let properties = match to {
        Destination::Reply(_) => reply(&envelope)?,
        _ => first(&envelope)?,
    };
    let mut needs = Vec::new();
    let unsupported = |why: String| Err(Error::new(ErrorKind::Unsupported, why));
    let (exchange, routing_key, mandatory) = match to {
        Destination::Queue(queue, part) => {
            let logical = queue.clone();
            let queue = physical(queue, part, &envelope)?;
            if matches!(part, Part::Lane(1..)) {
                parts.see_one(&logical, &queue);
            }
            needs.push(Need::Queue(queue.clone()));
            (String::new(), queue, true)
        }
        Destination::Topic(_) if !delay.is_zero() => {
            return unsupported("RabbitMQ delays messages to queues, not to topics".to_owned());
        }
        Destination::Topic(topic) => {
            needs.push(Need::Topic(topic.to_string()));
            (topic.to_string(), fan_out::routing_key(&envelope), true)
        }
        Destination::Reply(_) if !delay.is_zero() => {
            return unsupported("a reply cannot be delayed".to_owned());
        }
        // A living requester's address counts as unroutable before RabbitMQ 4.2.
        Destination::Reply(address) if replies.allows(address.as_str()) => {
            (String::new(), address.as_str().to_owned(), false)
        }
        Destination::Reply(_) => {
            let why = "replies may not go to this address";
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        other => return unsupported(format!("this transport cannot publish to {other:?}")),
    };
    if delay > delay::LONGEST {
        let days = delay::LONGEST.as_secs() / 86_400;
        return unsupported(format!("the longest delay is {days} days"));
    }
    let (exchange, routing_key) = match Ladder::route(delay, &routing_key) {
        Some(route) => {
            needs.push(Need::Ladder);
            route
        }
        None => (exchange, routing_key),
    };
    let letter = Letter {
        exchange: short("exchange name", &exchange)?,
        routing_key: short("routing key", &routing_key)?,
        mandatory,
        properties,
        body: envelope.body,
    };
    Ok((letter, needs))
}

/// The physical queue of a destination. A lane has the name of the message's priority.
fn physical(queue: Name, part: Part, envelope: &Envelope) -> Result<String> {
    match (part, &envelope.priority) {
        (Part::Lane(1..), Some(priority)) => Ok(names::lane(&queue, &names::lane_name(priority)?)),
        (Part::Lane(1..), None) => Err(Error::new(
            ErrorKind::Invalid,
            "a message to a lane needs that lane's name as its priority",
        )),
        (part, _) => names::part(&Topology::new(queue), part),
    }
}
