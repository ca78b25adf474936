//! Stream entries as the server sends them, and other replies.
//!
//! redis-rs's typed replies lose the order and the duplicates of fields; these keep both and move
//! the bytes instead of copying them.

use std::fmt;

use bytes::Bytes;
use redis::Value;

/// The id of a stream entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId {
    /// Ms since 1970 for ids the server made.
    pub(crate) ms: u64,
    pub(crate) sequence: u64,
}

/// The fields of an entry, in order.
pub(crate) type Fields = Vec<(Bytes, Bytes)>;

/// One stream entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) fields: Fields,
}

/// One row of XPENDING.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) id: EntryId,
    pub(crate) owner: String,
    /// Starts noted.
    pub(crate) count: u64,
}

impl EntryId {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (ms, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self {
            ms: ms.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// The entries of XRANGE and the like. What is no entry is skipped.
pub(crate) fn entries(value: Value) -> Vec<Entry> {
    array(value).into_iter().filter_map(entry).collect()
}

/// The entries of an XREADGROUP reply over one stream, in either protocol.
pub(crate) fn read_reply(value: Value) -> Vec<Entry> {
    match value {
        Value::Map(streams) => streams
            .into_iter()
            .flat_map(|(_, entries_of)| entries(entries_of))
            .collect(),
        other => array(other)
            .into_iter()
            .filter_map(|stream| array(stream).into_iter().nth(1))
            .flat_map(entries)
            .collect(),
    }
}

/// The rows of XPENDING in its long form.
pub(crate) fn pending(value: Value) -> Vec<Pending> {
    let row = |value| {
        let mut row = array(value).into_iter();
        Some(Pending {
            id: EntryId::parse(&bytes(row.next()?)?)?,
            owner: text(row.next()?)?,
            // Behind the idle time.
            count: int(&row.nth(1)?)?.try_into().unwrap_or(0),
        })
    };
    array(value).into_iter().filter_map(row).collect()
}

/// The value of one name in a map, in either protocol.
pub(crate) fn lookup<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let is = |key: &Value| match key {
        Value::BulkString(key) => key == name.as_bytes(),
        Value::SimpleString(key) => key == name,
        _ => false,
    };
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .find(|(key, _)| is(key))
            .map(|(_, value)| value),
        Value::Array(flat) => flat
            .chunks_exact(2)
            .find(|pair| is(&pair[0]))
            .map(|pair| &pair[1]),
        _ => None,
    }
}

pub(crate) fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) | Value::Set(values) => values,
        _ => Vec::new(),
    }
}

pub(crate) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        _ => None,
    }
}

pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into_bytes().into()),
        Value::Okay => Some(Bytes::from_static(b"OK")),
        _ => None,
    }
}

pub(crate) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?.into()).ok()
}

fn entry(value: Value) -> Option<Entry> {
    let mut parts = array(value).into_iter();
    let id = EntryId::parse(&bytes(parts.next()?)?)?;
    let fields = match parts.next()? {
        Value::Map(pairs) => pairs
            .into_iter()
            .filter_map(|(name, value)| Some((bytes(name)?, bytes(value)?)))
            .collect(),
        flat => {
            let mut flat = array(flat).into_iter();
            let mut fields = Vec::with_capacity(flat.len() / 2);
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                fields.push((bytes(name)?, bytes(value)?));
            }
            fields
        }
    };
    Some(Entry { id, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn order_and_duplicates_of_fields_are_kept_in_both_protocols() {
        let entry = Value::Array(vec![
            bulk("5-1"),
            Value::Array(vec![
                bulk("b"),
                bulk("1"),
                bulk("a"),
                bulk("2"),
                bulk("b"),
                bulk("3"),
            ]),
        ]);
        let three = Value::Map(vec![(bulk("key"), Value::Array(vec![entry.clone()]))]);
        let two = Value::Array(vec![Value::Array(vec![
            bulk("key"),
            Value::Array(vec![entry]),
        ])]);
        for reply in [two, three] {
            let read = read_reply(reply);
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].id, EntryId { ms: 5, sequence: 1 });
            let names: Vec<_> = read[0]
                .fields
                .iter()
                .map(|(n, v)| (&n[..], &v[..]))
                .collect();
            assert_eq!(names, [(&b"b"[..], &b"1"[..]), (b"a", b"2"), (b"b", b"3")]);
        }
        assert!(read_reply(Value::Nil).is_empty());
    }
}
