//! From what lapin read to an envelope, and from an envelope to what lapin writes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use longshore_core::{
    Defect, Delivery, Envelope, Error, ErrorKind, Limits, Part, Reason, Receipt, ReplyAddress,
    Result, Standing, Text,
};

use crate::{guard::Server, headers, reply_rule::ReplyRule};

/// The properties a delivery came with, exactly. Carried in [`Envelope::native`].
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) properties: BasicProperties,
    /// Set where the guard put this in the place of what nobody may parse: the message's
    /// fingerprint. There is nothing to copy.
    pub(crate) blanked: Option<Text>,
}

impl Native {
    pub(crate) fn of(envelope: &Envelope) -> Option<Arc<Self>> {
        envelope.native.clone()?.downcast().ok()
    }
}

/// A delivery as read.
pub(crate) struct Arrived {
    pub(crate) envelope: Envelope,
    /// Starts used up before this copy was published, as its header says.
    pub(crate) attempts: u32,
    /// How often this copy came back to the queue, as the broker says, and those before it since the last
    /// start. Until it came back once the broker sets no counter, and what stands in its place a publisher
    /// wrote.
    pub(crate) returns: u32,
    /// It was sent back from the dead letters, or its publisher gave it no id: what stands there was
    /// made for a copy, and equal messages have the same.
    pub(crate) exempt: bool,
    /// What the guard found.
    pub(crate) defect: Option<Defect>,
}

impl Arrived {
    /// Hands it out under this lock.
    pub(crate) fn delivery(self, receipt: Receipt, part: Part, limits: &Limits) -> Delivery {
        let defect = self.defect.or_else(|| limits.check(&self.envelope).err());
        Delivery {
            envelope: self.envelope,
            receipt,
            part,
            attempt: self.attempts.saturating_add(self.returns).saturating_add(1),
            suspect: false,
            alone: false,
            standing: match self.exempt {
                true => Standing::Exempt,
                false => Standing::Unknown,
            },
            defect: defect.map(Box::new),
        }
    }
}

/// The header in which this broker counts the returns of what it delivers again. No other may be
/// believed: it passes on whatever a publisher wrote there.
pub(crate) fn counter(server: &Server) -> &'static str {
    match server.rabbitmq() {
        Some(version) if version >= (4, 3) => "x-acquired-count",
        _ => "x-delivery-count",
    }
}

/// Reads a delivery. `marker` is the header by which the guard of its connection tells a defect,
/// `counter` the one by which the broker counts returns, where it delivers again.
pub(crate) fn arrived(
    properties: BasicProperties,
    body: Vec<u8>,
    marker: &str,
    counter: Option<&str>,
    replies: &ReplyRule,
    now: SystemTime,
) -> Arrived {
    let none = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&none);
    let defect = headers::text(table, marker).map(|told| {
        let (reason, rest) = told.split_once('\n').unwrap_or((&told, ""));
        let (print, detail) = rest.split_once('\n').unwrap_or((rest, ""));
        let defect = Defect::new(Reason::parse(reason), detail);
        (defect, Text::from(print))
    });
    let unreadable = unreadable_key(table);
    let count = |name| headers::number(table, name);
    let before = count(headers::RETURNS).unwrap_or(0);
    let returns = counter.and_then(count).unwrap_or(0);
    let attempts = attempts(table);
    let redriven = table.inner().get(headers::REDRIVEN) == Some(&AMQPValue::Boolean(true));
    let exempt = redriven || headers::had_no_id(table);

    let text = |property: &Option<ShortString>| -> Text {
        property
            .as_ref()
            .map(|p| p.as_str().into())
            .unwrap_or_default()
    };
    let mut envelope = Envelope::default();
    envelope.id = text(properties.message_id());
    envelope.kind = text(properties.kind());
    envelope.content_type = text(properties.content_type());
    envelope.body = body.into();
    envelope.key = headers::text(table, headers::KEY).map(Text::from);
    envelope.priority = headers::text(table, headers::PRIORITY).map(Text::from);
    envelope.correlation_id = Some(text(properties.correlation_id())).filter(|id| !id.is_empty());
    envelope.reply_to = Some(text(properties.reply_to()))
        .filter(|address| replies.allows(address))
        .map(ReplyAddress::checked);
    envelope.sent_at = count(headers::SENT_AT)
        .and_then(|ms| time(Duration::from_millis(ms)))
        .or_else(|| time(Duration::from_secs((*properties.timestamp())?)));
    envelope.expires_at = expiry(&properties, table, now);
    if defect.is_none() {
        envelope.headers = table
            .inner()
            .iter()
            .filter(|(name, _)| headers::is_users(name.as_str()))
            .map(|(name, value)| (name.as_str().into(), Bytes::from(headers::readable(value))))
            .collect();
    }
    envelope.native = Some(Arc::new(Native {
        blanked: defect.as_ref().map(|(_, print)| print.clone()),
        properties,
    }));
    Arrived {
        envelope,
        attempts,
        returns: clamped(returns.saturating_add(before)),
        exempt,
        defect: defect.map(|(defect, _)| defect).or(unreadable),
    }
}

/// Passed over, its message would be handled beside others of its session.
fn unreadable_key(table: &FieldTable) -> Option<Defect> {
    let AMQPValue::LongString(key) = table.inner().get(headers::KEY)? else {
        return None;
    };
    let unreadable = std::str::from_utf8(key.as_bytes()).is_err();
    unreadable.then(|| Defect::new(Reason::Hostile, "the key is no UTF-8"))
}

/// Far above any limit on attempts; what a header claims beyond it is not believed.
const MOST_ATTEMPTS: u32 = 1_000_000;

/// A count as a header holds it, believed within reason.
pub(crate) fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).min(MOST_ATTEMPTS)
}

/// Starts used up before this copy was published, as its header says.
pub(crate) fn attempts(table: &FieldTable) -> u32 {
    headers::number(table, headers::ATTEMPTS).map_or(0, clamped)
}

/// When a message expires: our header, else the plain property, counted from when we first see it.
fn expiry(properties: &BasicProperties, table: &FieldTable, now: SystemTime) -> Option<SystemTime> {
    if let Some(ms) = headers::number(table, headers::EXPIRES_AT) {
        return time(Duration::from_millis(ms));
    }
    let left: u64 = properties.expiration().as_ref()?.as_str().parse().ok()?;
    now.checked_add(Duration::from_millis(left))
}

fn time(since: Duration) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(since)
}

/// Milliseconds since 1970, as the headers hold them.
pub(crate) fn millis(at: SystemTime) -> AMQPValue {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    AMQPValue::LongLongInt(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A short string of the protocol.
///
/// # Errors
/// [`ErrorKind::Invalid`] above 255 bytes.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| {
        let has = text.len();
        Error::new(
            ErrorKind::Invalid,
            format!("the {what} has {has} bytes, AMQP allows 255"),
        )
    })
}

pub(crate) fn long(text: impl AsRef<[u8]>) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.as_ref()))
}

/// The properties of a message that is published for the first time.
///
/// # Errors
/// [`ErrorKind::Invalid`] for what AMQP cannot carry.
pub(crate) fn first(envelope: &Envelope) -> Result<BasicProperties> {
    published(envelope, headers::is_users)
}

/// The properties of a reply, which alone has headers of the framework's.
///
/// # Errors
/// See [`first`].
pub(crate) fn reply(envelope: &Envelope) -> Result<BasicProperties> {
    published(envelope, |name| {
        headers::is_users(name) || headers::is_replys(name)
    })
}

fn published(envelope: &Envelope, may_have: fn(&str) -> bool) -> Result<BasicProperties> {
    let mut table = FieldTable::default();
    for (name, value) in &envelope.headers {
        if !may_have(name) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the header name \"{}\" is reserved",
                    longshore_core::printable(name, 64)
                ),
            ));
        }
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        let value = match &**name {
            headers::REPLY_NUMBER => number().map_or_else(|| long(value), AMQPValue::LongLongInt),
            _ => long(value),
        };
        table.insert(short("header name", name)?, value);
    }
    if let Some(key) = &envelope.key {
        table.insert(headers::KEY.into(), long(key.as_bytes()));
    }
    if let Some(priority) = &envelope.priority {
        table.insert(headers::PRIORITY.into(), long(priority.as_bytes()));
    }
    if let Some(at) = envelope.expires_at {
        table.insert(headers::EXPIRES_AT.into(), millis(at));
    }
    let mut properties = BasicProperties::default()
        .with_message_id(short("id", &envelope.id)?)
        .with_delivery_mode(PERSISTENT);
    if let Some(at) = envelope.sent_at {
        table.insert(headers::SENT_AT.into(), millis(at));
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        properties = properties.with_timestamp(since.as_secs());
    }
    if !envelope.kind.is_empty() {
        properties = properties.with_type(short("type", &envelope.kind)?);
    }
    let content_type = match envelope.content_type.as_ref() as &str {
        "" => "application/json",
        other => other,
    };
    properties = properties.with_content_type(short("content type", content_type)?);
    if let Some(id) = &envelope.correlation_id {
        properties = properties.with_correlation_id(short("correlation id", id)?);
    }
    if let Some(address) = &envelope.reply_to {
        properties = properties.with_reply_to(short("reply address", address.as_str())?);
    }
    Ok(with_table(properties, table))
}

pub(crate) const PERSISTENT: u8 = 2;

pub(crate) fn with_table(properties: BasicProperties, table: FieldTable) -> BasicProperties {
    match table.inner().is_empty() {
        true => properties,
        false => properties.with_headers(table),
    }
}

/// How many octets the content header frame of these properties takes on the wire.
pub(crate) fn frame_size(properties: &BasicProperties) -> usize {
    let text = |property: &Option<ShortString>| match property {
        Some(text) => 1 + text.as_str().len(),
        None => 0,
    };
    let octet = |property: &Option<u8>| usize::from(property.is_some());
    let table = match properties.headers() {
        Some(table) => headers::table_size(table),
        None => 0,
    };
    // Frame head, class, weight, body size and flags, and the end octet.
    let frame = 7 + 2 + 2 + 8 + 2 + 1;
    frame
        + table
        + text(properties.content_type())
        + text(properties.content_encoding())
        + octet(properties.delivery_mode())
        + octet(properties.priority())
        + text(properties.correlation_id())
        + text(properties.reply_to())
        + text(properties.expiration())
        + text(properties.message_id())
        + properties.timestamp().map_or(0, |_| 8)
        + text(properties.kind())
        + text(properties.user_id())
        + text(properties.app_id())
        + text(properties.cluster_id())
}

#[cfg(test)]
mod tests;
