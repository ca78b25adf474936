//! From the fields of a stream entry to an envelope, and back.

use bytes::Bytes;
use longshore_core::{Limits, Standing};
use longshore_redis::fuzzing::{self, Fields, Read};

use super::envelopes::{assert_kept, assert_no_steering, assert_told, seen};
use crate::octets::Octets;

const PREFIX: &str = "ls:reply:";
/// What follows the fields of a dead letter.
const OURS: [&str; 5] = [
    "dead.reason",
    "dead.detail",
    "dead.attempts",
    "dead.queue",
    "dead.at",
];

/// Whatever a publisher adds is an envelope within the limits, or a defect without a body. What is an
/// envelope is the same after a publish, in the delayed set, and as a dead letter.
pub fn redis_envelope(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let fields = fields(&mut octets);
    for reply in [false, true] {
        let limits = Limits::default();
        let read = fuzzing::read(&fields, &limits, PREFIX, reply);
        assert_judged(&read, &limits, reply);
        if read.defect.is_none() {
            published(&read, reply);
        }
    }
    let shown = format!("{:?}", fuzzing::read_unjudged(&fields, PREFIX));
    assert!(!shown.contains(char::is_control), "{shown}");
    died(fields);
}

/// Reads what a server says an entry is, too.
pub(super) fn assert_readable(fields: &Fields) {
    let limits = Limits::default();
    assert_judged(
        &fuzzing::read(fields, &limits, PREFIX, false),
        &limits,
        false,
    );
}

fn assert_judged(read: &Read, limits: &Limits, reply: bool) {
    let envelope = &read.envelope;
    match &read.defect {
        None if reply => assert_eq!(limits.check(envelope), Ok(())),
        None => assert_kept(envelope, limits),
        Some(defect) => {
            assert_told(defect);
            assert!(envelope.body.is_empty() && envelope.headers.is_empty());
        }
    }
    if !reply {
        assert_no_steering(envelope);
    }
    assert!(read.attempts <= 1_000_000_000);
    if let Some(address) = &envelope.reply_to {
        let name = address.as_str().strip_prefix(PREFIX).expect("an inbox");
        assert!((1..=128).contains(&name.len()), "{name:?}");
        assert!(!name.contains([':', '{', '}']), "{name:?}");
    }
}

fn published(read: &Read, reply: bool) {
    let envelope = &read.envelope;
    let fields = fuzzing::written(envelope);
    let again = fuzzing::read(&fields, &Limits::default(), PREFIX, reply);
    assert_eq!(again.defect, None);
    assert_eq!((again.attempts, again.standing), (0, Standing::Unknown));
    assert_eq!(seen(&again.envelope), seen(envelope));

    let packed = fuzzing::packed(envelope, Some("00ff"), "name", "p.high:");
    let mut values = vec!["1".into(), "name".into(), "p.high:".into()];
    values.extend(fields.into_iter().flat_map(|(name, value)| [name, value]));
    values.extend(["dedup".into(), "00ff".into()]);
    assert_eq!(fuzzing::unpacked(&packed.into()), Some(values));
}

/// A dead letter holds its original, whatever that looks like.
fn died(original: Fields) {
    let _ = fuzzing::dead_letter(original.clone());
    if original.is_empty() {
        return;
    }
    let ours: Fields = OURS.map(|name| (name.into(), Bytes::from("1"))).into();
    let letter = [&original[..], &ours[..]].concat();
    let split = fuzzing::dead_letter(letter);
    assert_eq!(split, (original.clone(), ours.clone()));

    let mut packed = Vec::new();
    for octets in original.iter().flat_map(|(name, value)| [name, value]) {
        let length = u32::try_from(octets.len()).unwrap_or_default();
        packed.extend(length.to_be_bytes());
        packed.extend_from_slice(octets);
    }
    let mut letter = ours.clone();
    letter.push(("dead.packed".into(), packed.into()));
    assert_eq!(fuzzing::dead_letter(letter), (original, ours));
}

const NAMES: [&str; 22] = [
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
    "dedup",
    "redriven",
    "reply_to",
    "reply",
    "reply_number",
    "h.a",
    "h.longshore-reply",
    "h.",
    "dead.reason",
    "dead.packed",
    "h.traceparent",
    "unknown",
];

fn fields(octets: &mut Octets<'_>) -> Fields {
    let mut fields = Vec::new();
    while !octets.is_empty() {
        let name = match octets.octet() {
            n if usize::from(n) < NAMES.len() => NAMES[usize::from(n)].as_bytes().to_vec(),
            // Many at once.
            254 => {
                let (many, name) = (octets.u16() % 1200, octets.string());
                let each = |n: u16| (format!("{n}").into(), Bytes::copy_from_slice(&name));
                fields.extend((0..many).map(each));
                continue;
            }
            253 => [b"h.", &octets.string()[..]].concat(),
            _ => octets.string(),
        };
        let value = match octets.octet() {
            0 => format!("{PREFIX}{}", octets.text()).into(),
            1 => octets.u64().to_string().into_bytes(),
            _ => octets.string(),
        };
        fields.push((name.into(), value.into()));
    }
    fields
}
