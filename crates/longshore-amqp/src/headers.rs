//! The headers this crate writes, and those nobody may pass on.

use lapin::types::{AMQPValue, FieldTable};

/// Every header of ours begins so; a publisher's own are never shown and never trusted.
pub(crate) const RESERVED: &str = "longshore-";

pub(crate) const KEY: &str = "longshore-key";
pub(crate) const PRIORITY: &str = "longshore-priority";
/// Milliseconds since 1970, as a 64-bit integer, here and in the times below.
pub(crate) const SENT_AT: &str = "longshore-sent-at";
pub(crate) const EXPIRES_AT: &str = "longshore-expires-at";
/// Starts used up before this copy was published.
pub(crate) const ATTEMPTS: &str = "longshore-attempts";
/// How often earlier copies came back since the last start, without a word.
pub(crate) const RETURNS: &str = "longshore-returns";
/// It was sent back from the dead letters, so no dedup window holds it up.
pub(crate) const REDRIVEN: &str = "longshore-redriven";
/// What part of an answer a reply is, and which number that part has. The framework writes and reads
/// them, as headers of the envelope.
pub(crate) const REPLY: &str = "longshore-reply";
pub(crate) const REPLY_NUMBER: &str = "longshore-reply-number";
/// Properties of the original that a copy must not carry as such.
pub(crate) const ORIGINAL: &str = "longshore-original";
/// In the table of that name: the message had no id of its own.
pub(crate) const MESSAGE_ID: &str = "message-id";
/// Who published the original: the broker refuses the property from anybody else.
pub(crate) const USER_ID: &str = "longshore-user-id";

/// How the headers of a dead letter begin.
pub(crate) const DEAD: &str = "longshore-dead-";
pub(crate) const DEAD_REASON: &str = "longshore-dead-reason";
pub(crate) const DEAD_DETAIL: &str = "longshore-dead-detail";
pub(crate) const DEAD_ATTEMPTS: &str = "longshore-dead-attempts";
pub(crate) const DEAD_QUEUE: &str = "longshore-dead-queue";
pub(crate) const DEAD_TIME: &str = "longshore-dead-time";

/// The broker's own record of dead-lettering.
pub(crate) const DEATH: &str = "x-death";

/// Where the broker counts how often a message came back.
pub(crate) const COUNTERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// Whether the broker wrote this header, or acts on it when a message is published.
///
/// RabbitMQ 3 interprets `x-death` on what a client publishes and then drops messages it takes for
/// a cycle; `CC` and `BCC` are routing orders, carried out already.
pub(crate) fn is_brokers(name: &str) -> bool {
    matches!(
        name,
        DEATH | "x-delivery-count" | "x-acquired-count" | "CC" | "BCC"
    ) || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || name.starts_with("x-delivered-by")
}

/// Whether a user may see this header and a copy carries it.
pub(crate) fn is_users(name: &str) -> bool {
    !is_brokers(name) && !name.starts_with(RESERVED)
}

/// Whether the framework may set this header on a reply and reads it there.
pub(crate) fn is_replys(name: &str) -> bool {
    matches!(name, REPLY | REPLY_NUMBER)
}

/// A header that is text, as plain clients write and read it.
pub(crate) fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A header that is a number, whichever width its writer chose. Negative is absent.
pub(crate) fn number(table: &FieldTable, name: &str) -> Option<u64> {
    integer(table.inner().get(name)?)
}

pub(crate) fn integer(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::ShortShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::ShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongLongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::Timestamp(n) => Some(*n),
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.parse().ok(),
        _ => None,
    }
}

/// What a header's value looks like to a handler: text and octets as they are, the rest readable.
pub(crate) fn readable(value: &AMQPValue) -> Vec<u8> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ByteArray(octets) => octets.as_slice().to_vec(),
        value => {
            let mut shown = String::new();
            show(value, &mut shown);
            shown.into_bytes()
        }
    }
}

/// Recursion is bounded by the guard's depth limit.
fn show(value: &AMQPValue, into: &mut String) {
    use std::fmt::Write as _;
    let _ = match value {
        AMQPValue::Boolean(v) => write!(into, "{v}"),
        AMQPValue::ShortShortInt(v) => write!(into, "{v}"),
        AMQPValue::ShortShortUInt(v) => write!(into, "{v}"),
        AMQPValue::ShortInt(v) => write!(into, "{v}"),
        AMQPValue::ShortUInt(v) => write!(into, "{v}"),
        AMQPValue::LongInt(v) => write!(into, "{v}"),
        AMQPValue::LongUInt(v) => write!(into, "{v}"),
        AMQPValue::LongLongInt(v) => write!(into, "{v}"),
        AMQPValue::Float(v) => write!(into, "{v}"),
        AMQPValue::Double(v) => write!(into, "{v}"),
        AMQPValue::Timestamp(v) => write!(into, "{v}"),
        AMQPValue::DecimalValue(v) => write!(into, "{}e-{}", v.value, v.scale),
        AMQPValue::ShortString(v) => write!(into, "{:?}", v.as_str()),
        AMQPValue::LongString(v) => {
            write!(into, "{:?}", String::from_utf8_lossy(v.as_bytes()))
        }
        AMQPValue::ByteArray(v) => write!(into, "{:?}", String::from_utf8_lossy(v.as_slice())),
        AMQPValue::Void => write!(into, "null"),
        AMQPValue::FieldArray(items) => {
            into.push('[');
            for (n, item) in items.as_slice().iter().enumerate() {
                into.push_str(if n == 0 { "" } else { "," });
                show(item, into);
            }
            into.push(']');
            Ok(())
        }
        AMQPValue::FieldTable(table) => {
            into.push('{');
            for (n, (name, item)) in table.inner().iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                let _ = write!(into, "{comma}{:?}:", name.as_str());
                show(item, into);
            }
            into.push('}');
            Ok(())
        }
    };
}

/// How deep a table nests; itself is 1. Recursion is bounded by the guard's depth limit.
pub(crate) fn depth(table: &FieldTable) -> usize {
    1 + table
        .inner()
        .values()
        .map(value_depth)
        .max()
        .unwrap_or_default()
}

fn value_depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldTable(table) => depth(table),
        AMQPValue::FieldArray(items) => {
            1 + items
                .as_slice()
                .iter()
                .map(value_depth)
                .max()
                .unwrap_or_default()
        }
        _ => 0,
    }
}

/// How many octets a table takes on the wire, its own length included.
pub(crate) fn table_size(table: &FieldTable) -> usize {
    let entries = table.inner().iter();
    4 + entries
        .map(|(name, value)| 1 + name.as_str().len() + value_size(value))
        .sum::<usize>()
}

/// The type octet included.
fn value_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(octets) => 4 + octets.len(),
        AMQPValue::FieldArray(items) => 4 + items.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_size(table),
    }
}

/// Whether its id was made for a copy: its publisher gave it none.
pub(crate) fn had_no_id(table: &FieldTable) -> bool {
    let original = table.inner().get(ORIGINAL);
    matches!(original, Some(AMQPValue::FieldTable(original)) if original.contains_key(MESSAGE_ID))
}

#[cfg(test)]
mod tests {
    use lapin::types::{FieldArray, LongString, ShortString};

    use super::*;

    #[test]
    fn what_the_broker_acts_on_is_never_a_users() {
        for name in [
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-delivery-count",
            "x-acquired-count",
            "CC",
            "BCC",
            "longshore-attempts",
            "longshore-anything",
        ] {
            assert!(!is_users(name), "{name}");
        }
        for name in ["x-tenant", "traceparent", "cc", "x-deathly"] {
            assert!(is_users(name), "{name}");
        }
    }

    #[test]
    fn values_of_any_type_are_readable() {
        let mut inner = FieldTable::default();
        inner.insert("n".into(), AMQPValue::LongInt(-3));
        let list = FieldArray::from(vec![
            AMQPValue::Boolean(true),
            AMQPValue::FieldTable(inner),
            AMQPValue::LongString(LongString::from("a\"b")),
        ]);
        assert_eq!(
            readable(&AMQPValue::FieldArray(list)),
            br#"[true,{"n":-3},"a\"b"]"#
        );
        assert_eq!(readable(&AMQPValue::LongString(vec![255].into())), [255]);
        assert_eq!(
            readable(&AMQPValue::ShortString(ShortString::from("s"))),
            b"\"s\""
        );
    }
}
