//! What the broker sends, before lapin may read it.

use longshore_amqp::fuzzing::Guard;
use longshore_core::Limits;

use super::amqp_wire::{build, parse, short};
use crate::octets::Octets;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const END: u8 = 0xce;
const MOST: usize = 131_072;

/// Whatever arrives passes in the same way however it is cut into pieces, holds back no more than a
/// frame, and what passes lapin can read.
///
/// The first octet says how the rest is read: as octets of the broker, or as a plan for frames; the
/// second how long the pieces are.
pub fn amqp_frames(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let how = octets.octet();
    let piece = usize::from(octets.octet()).max(1);
    let stream = match how & 1 {
        0 => octets.rest().to_vec(),
        _ => frames(&mut octets),
    };
    let limits = Limits {
        body: 4096,
        ..Limits::default()
    };
    let mut whole = Vec::new();
    let mut guard = Guard::new(limits);
    let ended = guard.feed(&stream, &mut whole);

    let mut pieces = Vec::new();
    let mut other = Guard::new(limits);
    let ended_too = stream.chunks(piece).try_for_each(|piece| {
        let fed = other.feed(piece, &mut pieces);
        assert!(other.held() <= 2 * MOST, "{} octets held", other.held());
        fed
    });
    assert_eq!(ended.is_ok(), ended_too.is_ok());
    assert_eq!(whole, pieces, "other pieces, other frames");
    if stream.first() != Some(&b'A') {
        assert_readable(&whole, guard.marker(), &limits);
    }
}

fn assert_readable(mut passed: &[u8], marker: &str, limits: &Limits) {
    while let [kind, _, _, l0, l1, l2, l3, rest @ ..] = passed {
        let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
        assert!(length <= MOST, "a frame of {length} octets");
        let Some((payload, after)) = rest.split_at_checked(length) else {
            return;
        };
        let [END, after @ ..] = after else {
            return assert!(after.is_empty(), "a frame without its end");
        };
        match *kind {
            HEADER => assert_header(payload, marker, limits),
            METHOD => assert_method(payload),
            kind => assert!(kind == BODY || kind == HEARTBEAT, "frame kind {kind}"),
        }
        passed = after;
    }
}

fn assert_header(payload: &[u8], marker: &str, limits: &Limits) {
    let (body, properties) = parse(payload).expect("lapin can read it");
    assert!(body <= limits.body as u64, "a body of {body} octets");
    let Some(headers) = properties.headers() else {
        return;
    };
    if headers.contains_key(marker) {
        assert_eq!((body, headers.inner().len()), (0, 1), "blank but for this");
        assert_eq!(payload.get(12..14), Some(&[0x20, 0][..]));
    }
    let ours = |name: &str| name.starts_with("longshore-") || name.starts_with("x-");
    let names = headers.inner().keys();
    let users = names.filter(|name| !ours(name.as_str())).count();
    assert!(users <= limits.headers, "{users} headers");
}

/// The texts of a delivery are UTF-8, or lapin would end the connection.
fn assert_method(payload: &[u8]) {
    if let [0, 60, 0, 60, rest @ ..] = payload {
        let mut rest = Octets::new(rest);
        let tag = rest.string_behind_its_length();
        rest.take(9);
        for text in [
            tag,
            rest.string_behind_its_length(),
            rest.string_behind_its_length(),
        ] {
            assert!(std::str::from_utf8(text).is_ok(), "{text:?}");
        }
    }
}

/// Frames that are well formed but for a few, with anything in them.
fn frames(octets: &mut Octets<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !octets.is_empty() {
        let (kind, payload) = match octets.octet() % 16 {
            0..4 => (METHOD, deliver(octets)),
            4..8 => {
                let body = octets.u16();
                (HEADER, build(octets, u64::from(body)))
            }
            8..10 => (BODY, octets.string()),
            10 => (HEARTBEAT, Vec::new()),
            11 => (METHOD, returned(octets)),
            12 => (METHOD, close(octets)),
            13 => (METHOD, octets.string()),
            14 => (HEADER, octets.string()),
            _ => (octets.octet(), octets.string()),
        };
        stream.push(kind);
        stream.extend([0, octets.octet() % 3]);
        let length = u32::try_from(payload.len()).unwrap_or_default();
        stream.extend(length.to_be_bytes());
        stream.extend(payload);
        stream.push(match octets.octet() {
            255 => 0,
            _ => END,
        });
    }
    stream
}

fn deliver(octets: &mut Octets<'_>) -> Vec<u8> {
    let tag = octets.number::<9>();
    let texts = [
        short(b"tag"),
        tag.into(),
        short(&octets.string()),
        short(&octets.string()),
    ];
    [&[0, 60, 0, 60], &texts.concat()[..]].concat()
}

fn returned(octets: &mut Octets<'_>) -> Vec<u8> {
    let texts = [short(&octets.string()), short(b""), short(&octets.string())];
    [&[0, 60, 0, 50, 1, 56], &texts.concat()[..]].concat()
}

fn close(octets: &mut Octets<'_>) -> Vec<u8> {
    let text = short(&octets.string());
    [&[0, 20, 0, 40, 1, 148], &text[..], &[0; 4]].concat()
}
