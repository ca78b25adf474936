//! Fields of a stream entry <-> envelope.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use longshore_core::{Defect, Envelope, Limits, Reason, ReplyAddress, Standing, Text};
use redis::Cmd;

use crate::names::is_reply_address;

/// More fields than this fit neither a script nor any sensible message.
pub(crate) const MOST_FIELDS: usize = 1000;

/// The field that names the hold a message has had on its id since it was published.
const HOLD: &str = "dedup";
/// The field of a message that is outside the dedup window.
const REDRIVEN: &str = "redriven";

/// Headers that have a field of their own.
const REPLY: [(&str, &str); 2] = [
    ("longshore-reply", "reply"),
    ("longshore-reply-number", "reply_number"),
];

/// What an entry says.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) envelope: Envelope,
    /// Starts used up by earlier copies.
    pub(crate) attempts: u32,
    pub(crate) standing: Standing,
    pub(crate) defect: Option<Box<Defect>>,
}

/// The fields of an envelope in the order they are written, each given to `write`.
pub(crate) fn write(envelope: &Envelope, mut write: impl FnMut(&[u8], &[u8])) {
    write(b"type", envelope.kind.as_bytes());
    let optional = [
        ("id", Some(&envelope.id).filter(|id| !id.is_empty())),
        ("key", envelope.key.as_ref()),
        ("priority", envelope.priority.as_ref()),
        (
            "content_type",
            Some(&envelope.content_type).filter(|t| !t.is_empty()),
        ),
        ("correlation_id", envelope.correlation_id.as_ref()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            write(name.as_bytes(), value.as_bytes());
        }
    }
    if let Some(reply_to) = &envelope.reply_to {
        write(b"reply_to", reply_to.as_str().as_bytes());
    }
    for (name, time) in [
        ("sent_at", envelope.sent_at),
        ("expires_at", envelope.expires_at),
    ] {
        if let Some(ms) = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            write(name.as_bytes(), ms.as_millis().to_string().as_bytes());
        }
    }
    for (name, value) in &envelope.headers {
        match REPLY.iter().find(|(header, _)| name == header) {
            Some((_, field)) => write(field.as_bytes(), value),
            None => write(["h.", name].concat().as_bytes(), value),
        }
    }
    write(b"body", &envelope.body);
}

/// Adds the fields of an envelope to a command; `hold` names the hold it has on its id.
pub(crate) fn add_fields(command: &mut Cmd, envelope: &Envelope, hold: Option<&str>) {
    write(envelope, |name, value| {
        command.arg(name).arg(value);
    });
    if let Some(hold) = hold {
        command.arg(HOLD).arg(hold);
    }
}

/// The envelope as a member of the delayed set; `name` makes it unlike any other, `part` is its
/// lane as in a key.
pub(crate) fn pack(envelope: &Envelope, hold: Option<&str>, name: &str, part: &str) -> Vec<u8> {
    let mut packed = Vec::with_capacity(envelope.body.len() + 256);
    for value in [b"1", name.as_bytes(), part.as_bytes()] {
        push(&mut packed, value);
    }
    write(envelope, |name, value| {
        push(&mut packed, name);
        push(&mut packed, value);
    });
    if let Some(hold) = hold {
        push(&mut packed, HOLD.as_bytes());
        push(&mut packed, hold.as_bytes());
    }
    packed
}

/// The strings of a packed value; `None` where it is not one.
pub(crate) fn unpack(packed: &Bytes) -> Option<Vec<Bytes>> {
    let mut values = Vec::new();
    let mut rest = packed.clone();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let end = length.checked_add(4)?;
        rest.get(..end)?;
        values.push(rest.split_to(end).slice(4..));
    }
    Some(values)
}

/// Reads the fields of an entry that anybody may have written. What breaks a rule becomes a defect,
/// never an error, and its body is dropped from memory.
pub(crate) fn read(fields: &[(Bytes, Bytes)], limits: &Limits, reply_prefix: &str) -> Read {
    let mut read = read_reply(fields, limits, reply_prefix);
    // Only in a reply does it mean anything.
    let headers = &mut read.envelope.headers;
    headers.retain(|(name, _)| REPLY.iter().all(|(header, _)| name != header));
    read
}

/// The same for what arrives where replies do.
pub(crate) fn read_reply(fields: &[(Bytes, Bytes)], limits: &Limits, reply_prefix: &str) -> Read {
    let mut reading = Reading::default();
    for (name, value) in fields {
        reading.field(name, value, limits, reply_prefix);
    }
    let Reading {
        mut envelope,
        attempts,
        standing,
        seen,
        wrong,
        ..
    } = reading;
    let mut defect = wrong.map(|detail| Defect::new(Reason::Hostile, detail));
    // The size comes first: it is what an operator has to know before he touches the message.
    if envelope.body.len() > limits.body {
        defect = Some(Defect::too_large(envelope.body.len() as u64, limits.body));
    } else if fields.len() > MOST_FIELDS {
        let has = fields.len();
        defect = Some(Defect::new(
            Reason::Hostile,
            format!("{has} fields, the limit is {MOST_FIELDS}"),
        ));
    } else if defect.is_none() && seen & BODY == 0 {
        defect = Some(Defect::new(Reason::Hostile, "there is no field \"body\""));
    }
    let defect = defect
        .or_else(|| limits.check(&envelope).err())
        .map(Box::new);
    if defect.is_some() {
        envelope.body = Bytes::new();
        envelope.headers = Vec::new();
    }
    Read {
        envelope,
        attempts,
        standing,
        defect,
    }
}

/// The envelope of an entry as far as it can be read, whatever rules it breaks: for operators.
pub(crate) fn read_unjudged(fields: &[(Bytes, Bytes)], reply_prefix: &str) -> Envelope {
    let limits = Limits {
        body: usize::MAX,
        headers: usize::MAX,
        header_bytes: usize::MAX,
        name_bytes: usize::MAX,
        ..Limits::default()
    };
    let mut reading = Reading::default();
    for (name, value) in fields {
        reading.field(name, value, &limits, reply_prefix);
    }
    reading.envelope
}

#[derive(Default)]
struct Reading {
    envelope: Envelope,
    attempts: u32,
    standing: Standing,
    seen: u16,
    header_count: usize,
    wrong: Option<String>,
}

const KNOWN: [&str; 12] = [
    "body",
    "type",
    "id",
    "key",
    "priority",
    "content_type",
    "correlation_id",
    "sent_at",
    "expires_at",
    "attempt",
    HOLD,
    REDRIVEN,
];
const BODY: u16 = 1;
const RESERVED: &str = "longshore-";

impl Reading {
    fn field(&mut self, name: &Bytes, value: &Bytes, limits: &Limits, reply_prefix: &str) {
        if let Some(place) = KNOWN.iter().position(|known| name == known.as_bytes()) {
            if self.seen & (1 << place) != 0 {
                return self.hostile(format!("the field \"{}\" occurs twice", KNOWN[place]));
            }
            self.seen |= 1 << place;
            return self.known(KNOWN[place], value, limits);
        }
        if name == "reply_to".as_bytes() {
            // Anything else would let a publisher choose where we write.
            if let Some(address) =
                text(value).filter(|address| is_reply_address(reply_prefix, address))
            {
                self.envelope.reply_to = Some(ReplyAddress::checked(address));
            }
            return;
        }
        // Fields that we do not know count like headers: both are memory a publisher chooses.
        self.header_count += 1;
        if self.header_count > limits.headers {
            return self.hostile(format!(
                "more than {} headers and unknown fields",
                limits.headers
            ));
        }
        if let Some((header, _)) = REPLY.iter().find(|(_, field)| name == field.as_bytes()) {
            self.envelope
                .headers
                .push(((*header).into(), value.clone()));
        } else if name.starts_with(b"h.") {
            match text(&name.slice(2..)) {
                // No header of a user's.
                Some(name) if name.starts_with(RESERVED) => {}
                Some(name) => self.envelope.headers.push((name, value.clone())),
                None => self.hostile("a header name is not UTF-8".into()),
            }
        }
    }

    fn known(&mut self, name: &'static str, value: &Bytes, limits: &Limits) {
        match name {
            "body" => return self.envelope.body = value.clone(),
            "attempt" => {
                return self.attempts = number(value).map_or(0, |n| n.min(MOST_ATTEMPTS) as u32);
            }
            REDRIVEN if value == "1" => return self.standing = Standing::Exempt,
            REDRIVEN => return,
            HOLD if self.standing == Standing::Exempt => return,
            HOLD => return self.standing = Standing::Held,
            "sent_at" => return self.envelope.sent_at = time(value),
            "expires_at" => return self.envelope.expires_at = time(value),
            _ => {}
        }
        if value.len() > limits.name_bytes {
            let (has, may) = (value.len(), limits.name_bytes);
            return self.hostile(format!(
                "the field \"{name}\" has {has} bytes, the limit is {may}"
            ));
        }
        let Some(value) = text(value) else {
            return self.hostile(format!("the field \"{name}\" is not UTF-8"));
        };
        let given = Some(value.clone()).filter(|value| !value.is_empty());
        match name {
            "type" => self.envelope.kind = value,
            "id" => self.envelope.id = value,
            "content_type" => self.envelope.content_type = value,
            "key" => self.envelope.key = given,
            "priority" => self.envelope.priority = given,
            _ => self.envelope.correlation_id = given,
        }
    }

    fn hostile(&mut self, detail: String) {
        self.wrong.get_or_insert(detail);
    }
}

/// What a publisher can claim has been used up, so that adding to it cannot overflow.
const MOST_ATTEMPTS: u64 = 1_000_000_000;

fn text(value: &Bytes) -> Option<Text> {
    Text::try_from(value.clone()).ok()
}

fn number(value: &Bytes) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn time(value: &Bytes) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(number(value)?))
}

fn push(packed: &mut Vec<u8>, value: &[u8]) {
    // A body is at most 16 MiB, so its length fits.
    packed.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
