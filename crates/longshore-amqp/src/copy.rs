//! Copies of what was delivered: for another try, for the dead letters, and back from there.

use std::time::SystemTime;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use longshore_core::{
    Envelope, Error, ErrorKind, Reason, Result, chaos::Flaw, content_id, printable,
};

use crate::{
    convert::{
        Native, PERSISTENT, attempts, clamped, first, frame_size, long, millis, short, with_table,
    },
    headers::{self, integer},
};

/// What a dead letter carries beside its message.
pub(crate) struct Death<'a> {
    pub(crate) reason: &'a Reason,
    pub(crate) detail: &'a str,
    pub(crate) attempts: u32,
    pub(crate) queue: &'a str,
    pub(crate) at: SystemTime,
}

/// Detail is for a person to read.
const LONGEST_DETAIL: usize = 4096;

/// The properties of a copy that has used up so many starts.
///
/// Everything a publisher can set survives, with its type. What a copy must not carry as a property
/// (an `expiration` would end it early inside the delay ladder, a `priority` breaks order, a foreign
/// `user_id` is refused) is kept in a header and restored by [`restored`].
pub(crate) fn again(envelope: &Envelope, attempts: u32) -> Result<BasicProperties> {
    counted(envelope, attempts, 0)
}

/// The properties of a copy of what was given back before this attempt started. What it has lost by
/// only coming back is told apart: given back again and again, it would never be a suspect.
pub(crate) fn unstarted(envelope: &Envelope, attempt: u32) -> Result<BasicProperties> {
    let native = Native::of(envelope);
    let headers = native
        .as_ref()
        .and_then(|native| native.properties.headers().as_ref());
    let lost = attempt.saturating_sub(1);
    let started = headers.map_or(0, attempts).min(lost);
    counted(envelope, started, lost - started)
}

fn counted(envelope: &Envelope, attempts: u32, returns: u32) -> Result<BasicProperties> {
    let (properties, mut table) = base(envelope)?;
    for (name, count) in [(headers::ATTEMPTS, attempts), (headers::RETURNS, returns)] {
        if count > 0 && !Flaw::AttemptsInMemory.on() {
            table.insert(name.into(), AMQPValue::LongLongInt(count.into()));
        }
    }
    Ok(with_table(properties, table))
}

/// The properties of the dead letter of this message. The detail is cut to fit `frame_max`.
///
/// # Errors
/// [`ErrorKind::Invalid`] where the message itself leaves no room: it must be moved, not copied.
pub(crate) fn dead(
    envelope: &Envelope,
    death: &Death<'_>,
    frame_max: usize,
) -> Result<BasicProperties> {
    let (properties, table) = base(envelope)?;
    let mut table = without(&table, headers::REDRIVEN);
    let reason = death.reason.as_str();
    table.insert(headers::DEAD_REASON.into(), long(reason));
    table.insert(
        headers::DEAD_ATTEMPTS.into(),
        AMQPValue::LongLongInt(death.attempts.into()),
    );
    table.insert(headers::DEAD_QUEUE.into(), long(death.queue));
    table.insert(headers::DEAD_TIME.into(), millis(death.at));
    let with_detail = |detail: &str| {
        let mut table = table.clone();
        table.insert(headers::DEAD_DETAIL.into(), long(detail));
        with_table(properties.clone(), table)
    };
    let room = frame_max.saturating_sub(frame_size(&with_detail("")));
    let longest = LONGEST_DETAIL.min(death.detail.len());
    let copy = with_detail(cut(death.detail, longest.min(room)));
    fits(&copy, frame_max)?;
    Ok(copy)
}

/// Whether the header frame of these properties may be written.
///
/// # Errors
/// [`ErrorKind::Invalid`]: the broker would close the connection.
pub(crate) fn fits(properties: &BasicProperties, frame_max: usize) -> Result<()> {
    let size = frame_size(properties);
    match size <= frame_max {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Invalid,
            format!("the headers take {size} bytes, the broker allows {frame_max}"),
        )),
    }
}

/// The longest prefix of at most this many bytes that is still text.
fn cut(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// The properties a dead letter had when it was first published, and the mark of a redrive.
///
/// `user` is who we are at this broker: the only `user_id` it takes from us.
pub(crate) fn restored(dead: &BasicProperties, user: &str) -> BasicProperties {
    let none = FieldTable::default();
    let table = dead.headers().as_ref().unwrap_or(&none);
    // What the broker moved has no obituary of ours, see `obituary`.
    let moved = table.inner().contains_key(headers::DEATH);
    let mut kept = FieldTable::default();
    for (name, value) in table {
        let word = name.as_str();
        if Flaw::RedriveLosesKey.on() && word == headers::KEY {
            continue;
        }
        let ours = matches!(
            word,
            headers::KEY | headers::PRIORITY | headers::SENT_AT | headers::USER_ID
        );
        if ours || headers::is_users(word) || moved && word.starts_with(headers::DEAD) {
            kept.insert(name.clone(), value.clone());
        }
    }
    let original = match table.inner().get(headers::ORIGINAL) {
        Some(AMQPValue::FieldTable(original)) => Some(original),
        _ => None,
    };
    let field = |name: &str| original.and_then(|original| original.inner().get(name));
    let octet = |name: &str| {
        let n = integer(field(name)?)?;
        u8::try_from(n).ok()
    };

    let mut properties = same(dead);
    if field(headers::MESSAGE_ID).is_none() {
        properties = set(
            properties,
            dead.message_id(),
            BasicProperties::with_message_id,
        );
    }
    match field(DELIVERY_MODE) {
        Some(AMQPValue::Void) => {}
        Some(_) => {
            let mode = octet(DELIVERY_MODE).filter(|mode| *mode <= PERSISTENT);
            properties = properties.with_delivery_mode(mode.unwrap_or(PERSISTENT));
        }
        None => {
            if let Some(mode) = dead.delivery_mode() {
                properties = properties.with_delivery_mode(*mode);
            }
        }
    }
    if let Some(priority) = octet(PRIORITY).or(*dead.priority()) {
        properties = properties.with_priority(priority);
    }
    // Not ours, so this was the plain property before the first copy was made. A forged one that
    // is no number would close the channel.
    let expiration = original
        .and_then(|original| headers::text(original, EXPIRATION))
        .or_else(|| broker_expiration(table))
        .filter(|ms| ms.parse::<u32>().is_ok())
        .and_then(|ms| ShortString::try_new(ms).ok());
    if expiration.is_some() {
        properties = set(properties, &expiration, BasicProperties::with_expiration);
    } else if let Some(at) = table.inner().get(headers::EXPIRES_AT) {
        kept.insert(headers::EXPIRES_AT.into(), at.clone());
    }
    let publisher = match dead.user_id() {
        Some(publisher) => Some(publisher.to_string()),
        None => headers::text(table, headers::USER_ID),
    };
    if publisher.as_deref() == Some(user) {
        properties = set(
            properties,
            &ShortString::try_new(user).ok(),
            BasicProperties::with_user_id,
        );
        kept = without(&kept, headers::USER_ID);
    } else if let Some(publisher) = publisher {
        kept.insert(headers::USER_ID.into(), long(publisher));
    }
    kept.insert(headers::REDRIVEN.into(), AMQPValue::Boolean(true));
    with_table(properties, kept)
}

const DELIVERY_MODE: &str = "delivery-mode";
const PRIORITY: &str = "priority";
const EXPIRATION: &str = "expiration";

/// The broker takes `expiration` off what it dead-letters and notes it in `x-death`.
fn broker_expiration(table: &FieldTable) -> Option<String> {
    let Some(AMQPValue::FieldArray(deaths)) = table.inner().get(headers::DEATH) else {
        return None;
    };
    deaths.as_slice().iter().find_map(|death| match death {
        AMQPValue::FieldTable(death) => headers::text(death, "original-expiration"),
        _ => None,
    })
}

/// The properties every copy shares with its source, and its headers.
fn base(envelope: &Envelope) -> Result<(BasicProperties, FieldTable)> {
    let Some(native) = Native::of(envelope) else {
        let properties = first(envelope)?;
        let table = properties.headers().clone().unwrap_or_default();
        return Ok((properties, table));
    };
    if native.blanked.is_some() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "this message was never read; it can only be moved by the broker",
        ));
    }
    let source = &native.properties;
    let none = FieldTable::default();
    let table = source.headers().as_ref().unwrap_or(&none);
    let mut kept = FieldTable::default();
    for (name, value) in table {
        let ours = matches!(
            name.as_str(),
            headers::KEY
                | headers::PRIORITY
                | headers::SENT_AT
                | headers::EXPIRES_AT
                | headers::ORIGINAL
                | headers::USER_ID
                | headers::REDRIVEN
        );
        if ours || headers::is_users(name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    // Its lane, which a plain client need not name, or names wrongly.
    match &envelope.priority {
        Some(lane) if headers::text(&kept, headers::PRIORITY).as_deref() != Some(lane) => {
            kept.insert(headers::PRIORITY.into(), long(lane.as_bytes()));
        }
        None if kept.contains_key(headers::PRIORITY) => kept = without(&kept, headers::PRIORITY),
        _ => {}
    }
    let mut original = match kept.inner().get(headers::ORIGINAL) {
        Some(AMQPValue::FieldTable(original)) => original.clone(),
        _ => FieldTable::default(),
    };
    let mut properties = same(source).with_delivery_mode(PERSISTENT);
    match source.delivery_mode() {
        Some(PERSISTENT) => {}
        Some(mode) => drop(original.insert(DELIVERY_MODE.into(), AMQPValue::ShortShortUInt(*mode))),
        None => drop(original.insert(DELIVERY_MODE.into(), AMQPValue::Void)),
    }
    if let Some(priority) = source.priority() {
        original.insert(PRIORITY.into(), AMQPValue::ShortShortUInt(*priority));
    }
    if let Some(expiration) = source.expiration() {
        original.insert(EXPIRATION.into(), long(expiration.as_str()));
    }
    if let Some(user) = source.user_id() {
        kept.insert(headers::USER_ID.into(), long(user.as_str()));
    }
    match source.message_id() {
        Some(id) if !id.as_str().is_empty() => properties = properties.with_message_id(id.clone()),
        _ => {
            original.insert(headers::MESSAGE_ID.into(), AMQPValue::Void);
            let id = content_id(envelope);
            properties = properties.with_message_id(short("id", &id)?);
        }
    }
    if let (None, Some(at)) = (kept.inner().get(headers::EXPIRES_AT), envelope.expires_at) {
        kept.insert(headers::EXPIRES_AT.into(), millis(at));
    }
    if original.inner().is_empty() {
        kept = without(&kept, headers::ORIGINAL);
    } else {
        kept.insert(headers::ORIGINAL.into(), AMQPValue::FieldTable(original));
    }
    Ok((properties, kept))
}

/// The properties that pass every copy as they are.
fn same(source: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default();
    if let Some(at) = source.timestamp() {
        properties = properties.with_timestamp(*at);
    }
    type With = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, With); 7] = [
        (source.content_type(), BasicProperties::with_content_type),
        (
            source.content_encoding(),
            BasicProperties::with_content_encoding,
        ),
        (
            source.correlation_id(),
            BasicProperties::with_correlation_id,
        ),
        (source.reply_to(), BasicProperties::with_reply_to),
        (source.kind(), BasicProperties::with_type),
        (source.app_id(), BasicProperties::with_app_id),
        (source.cluster_id(), BasicProperties::with_cluster_id),
    ];
    for (text, with) in texts {
        properties = set(properties, text, with);
    }
    properties
}

fn set(
    properties: BasicProperties,
    value: &Option<ShortString>,
    with: fn(BasicProperties, ShortString) -> BasicProperties,
) -> BasicProperties {
    match value {
        Some(value) => with(properties, value.clone()),
        None => properties,
    }
}

fn without(table: &FieldTable, name: &str) -> FieldTable {
    let mut entries = table.inner().clone();
    entries.remove(name);
    entries.into()
}

/// What the headers of a dead letter say of its death: ours, or the broker's where it moved it.
pub(crate) struct Obituary {
    pub(crate) reason: Option<Reason>,
    pub(crate) detail: String,
    pub(crate) attempts: u32,
    pub(crate) at: Option<u64>,
    /// Out of which queue the broker moved it, where it did.
    pub(crate) queue: Option<String>,
    /// The broker's own reason of the last move, such as `rejected` or `expired`.
    pub(crate) brokers: Option<String>,
}

/// Our copies carry no `x-death`, and whatever the broker moves carries one whose first entry is of
/// that very move: from RabbitMQ 4 on it believes no other, and before it puts its own in front of
/// what a publisher forged. So where there is one, nobody of ours wrote of this death, and what is
/// written is the publisher's. Only the time can be forged even so, where RabbitMQ 3 found an entry
/// of the same queue and reason to count up; it is told only of an entry that was not.
pub(crate) fn obituary(properties: &BasicProperties) -> Obituary {
    let none = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&none);
    if let Some(deaths) = table.inner().get(headers::DEATH) {
        let last = match deaths {
            AMQPValue::FieldArray(deaths) => match deaths.as_slice().first() {
                Some(AMQPValue::FieldTable(death)) => Some(death),
                _ => None,
            },
            _ => None,
        };
        let fresh = last.filter(|death| headers::number(death, "count") == Some(1));
        let seconds = fresh.and_then(|death| headers::number(death, "time"));
        let reason = last.and_then(|death| headers::text(death, "reason"));
        return Obituary {
            reason: None,
            detail: String::new(),
            attempts: attempts(table),
            at: seconds.and_then(|seconds| seconds.checked_mul(1000)),
            queue: last.and_then(|death| headers::text(death, "queue")),
            brokers: reason.map(|reason| printable(&reason, 32)),
        };
    }
    let detail = headers::text(table, headers::DEAD_DETAIL).unwrap_or_default();
    let counted = headers::number(table, headers::DEAD_ATTEMPTS);
    Obituary {
        reason: headers::text(table, headers::DEAD_REASON).map(|word| Reason::parse(&word)),
        detail: cut(&detail, LONGEST_DETAIL).to_owned(),
        attempts: counted.map_or_else(|| attempts(table), clamped),
        at: headers::number(table, headers::DEAD_TIME),
        queue: None,
        brokers: None,
    }
}

#[cfg(test)]
mod tests;
