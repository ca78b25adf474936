//! Content headers: made of arbitrary octets, and read and written as lapin does.

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parsing::parse_content_header},
    protocol::BasicProperties,
};

use crate::octets::Octets;

/// What lapin makes of the payload of a content header frame.
pub(super) fn parse(payload: &[u8]) -> Option<(u64, BasicProperties)> {
    let (rest, header) = parse_content_header(payload).ok()?;
    rest.is_empty()
        .then_some((header.body_size, header.properties))
}

/// The content header frame lapin writes.
pub(super) fn frame(properties: &BasicProperties, body_size: u64) -> Vec<u8> {
    let header = AMQPContentHeader {
        class_id: 60,
        body_size,
        properties: properties.clone(),
    };
    let frame = AMQPFrame::Header(1, header);
    let written = gen_frame(&frame)(WriteContext::from(Vec::new()));
    written.expect("lapin can write it").write
}

/// The payload of that frame.
pub(super) fn payload(properties: &BasicProperties, body_size: u64) -> Vec<u8> {
    let frame = frame(properties, body_size);
    frame[7..frame.len() - 1].to_vec()
}

/// The payload of a content header frame: well formed in its lengths, and hostile in all else.
pub(super) fn build(octets: &mut Octets<'_>, body_size: u64) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body_size.to_be_bytes());
    let flags = octets.u16() & !0b11;
    payload.extend(flags.to_be_bytes());
    for bit in (2..16).rev().filter(|bit| flags & 1 << bit != 0) {
        match bit {
            13 => payload.extend(long(&table(octets, 1))),
            12 | 11 => payload.push(octets.octet()),
            6 => payload.extend(octets.number::<8>()),
            9 => payload.extend(reply_to(octets)),
            8 => payload.extend(short(&decimal(octets))),
            _ => payload.extend(short(&octets.string())),
        }
    }
    payload
}

/// Names that mean something to somebody.
const NAMES: [&str; 28] = [
    "longshore-key",
    "longshore-priority",
    "longshore-sent-at",
    "longshore-expires-at",
    "longshore-attempts",
    "longshore-redriven",
    "longshore-original",
    "longshore-user-id",
    "longshore-reply",
    "longshore-reply-number",
    "longshore-dead-reason",
    "longshore-dead-detail",
    "longshore-dead-attempts",
    "longshore-dead-time",
    "longshore-dead-queue",
    "longshore-anything",
    "x-death",
    "x-first-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    "traceparent",
    "message-id",
    "delivery-mode",
    "started",
    "token",
];

/// Types of values: all there are, the common ones more often, and one that is none.
const KINDS: &[u8] = b"SSSSlltFFAAVbBsUuIifDLdTxz";

/// Deeper than any limit, and no deeper than this program's stack.
const DEEPEST: usize = 12;

fn table(octets: &mut Octets<'_>, depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..octets.octet() % 12 {
        let name = match octets.octet() {
            n if usize::from(n) < NAMES.len() => NAMES[usize::from(n)].into(),
            _ => octets.string(),
        };
        table.extend(short(&name));
        table.extend(value(octets, depth));
        if octets.is_empty() {
            break;
        }
    }
    table
}

fn value(octets: &mut Octets<'_>, depth: usize) -> Vec<u8> {
    let kind = octets.pick(KINDS);
    let value = match kind {
        b'S' => match octets.octet() {
            0..16 => long(&decimal(octets)),
            _ => long(&octets.string()),
        },
        b'x' => long(&octets.string()),
        b'F' if depth < DEEPEST => long(&table(octets, depth + 1)),
        b'A' if depth < DEEPEST => {
            let items = 0..octets.octet() % 4;
            long(
                &items
                    .flat_map(|_| value(octets, depth + 1))
                    .collect::<Vec<_>>(),
            )
        }
        b'F' | b'A' => long(&[]),
        b'V' | b'z' => Vec::new(),
        b't' => vec![octets.octet() & 1],
        b'b' | b'B' => octets.number::<1>().into(),
        b's' | b'U' | b'u' => octets.number::<2>().into(),
        b'I' | b'i' | b'f' => octets.number::<4>().into(),
        b'D' => octets.number::<5>().into(),
        _ => octets.number::<8>().into(),
    };
    [&[kind], &value[..]].concat()
}

/// A number in digits, which may be absurd.
fn decimal(octets: &mut Octets<'_>) -> Vec<u8> {
    match octets.octet() {
        0..4 => octets.string(),
        4..128 => octets.octet().to_string().into_bytes(),
        _ => octets.u64().to_string().into_bytes(),
    }
}

fn reply_to(octets: &mut Octets<'_>) -> Vec<u8> {
    const REAL: &str = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA3ODYxMzA3NgAAIAMAAAAHawAcew==.13nTvnTMlw3zuefM/zsRNw==";
    let from = ["", REAL, "amq.gen-JzTY20BRgKO", "answers.mine", "orders"];
    let mut address = octets.pick(&from).as_bytes().to_vec();
    if octets.octet() > 127 {
        address.extend(octets.string());
    }
    short(&address)
}

pub(super) fn short(octets: &[u8]) -> Vec<u8> {
    let octets = &octets[..octets.len().min(255)];
    let length = u8::try_from(octets.len()).unwrap_or_default();
    [&[length], octets].concat()
}

fn long(octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).unwrap_or_default();
    [&length.to_be_bytes(), octets].concat()
}
