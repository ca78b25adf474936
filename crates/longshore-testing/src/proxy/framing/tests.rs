use std::time::Duration;

use super::*;
use crate::proxy::trap::Method;

const GREETING: &[u8] = b"AMQP\0\0\x09\x01";

/// A frame of channel 1.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
}

fn method(class: u16, method: u16) -> Vec<u8> {
    let numbers = [class.to_be_bytes(), method.to_be_bytes()].concat();
    frame(1, &[&numbers[..], b"arguments"].concat())
}

/// A publish, its properties and its body in two frames, one of which looks like a publish.
fn publish(body: &[u8]) -> Vec<u8> {
    let header = frame(2, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0]);
    [
        method(60, 40),
        header,
        frame(3, body),
        frame(3, &method(60, 40)),
    ]
    .concat()
}

/// What passes of a stream that comes in pieces of `at` bytes, what was found in it, and how it ended.
fn passed(
    direction: Direction,
    stream: &[u8],
    at: usize,
    harm: impl Fn(usize, Unit) -> Option<Harm>,
) -> (Vec<u8>, Vec<Unit>, Option<Harm>) {
    let (mut framing, mut out, mut found) = (Framing::new(direction), Vec::new(), Vec::new());
    for piece in stream.chunks(at) {
        let ends = framing.pass(piece, &mut out, |unit| {
            found.push(unit);
            harm(found.len(), unit)
        });
        if ends.is_some() {
            return (out, found, ends);
        }
    }
    framing.rest(&mut out);
    (out, found, None)
}

/// The same however the stream is cut into pieces, in two at every byte too.
#[track_caller]
fn always(
    direction: Direction,
    stream: &[u8],
    expected: &[u8],
    units: usize,
    harm: impl Fn(usize, Unit) -> Option<Harm>,
) {
    for at in 1..=stream.len() {
        let (out, found, ends) = passed(direction, stream, at, &harm);
        assert_eq!(out, expected, "in pieces of {at}");
        assert_eq!((found.len(), ends), (units, None), "in pieces of {at}");
    }
    for at in 0..stream.len() {
        let (mut framing, mut out, mut count) = (Framing::new(direction), Vec::new(), 0);
        for piece in [&stream[..at], &stream[at..]] {
            framing.pass(piece, &mut out, |unit| {
                count += 1;
                harm(count, unit)
            });
        }
        framing.rest(&mut out);
        assert_eq!((&out[..], count), (expected, units), "cut at {at}");
    }
}

#[test]
fn amqp_passes_unchanged_and_every_method_is_seen_once() {
    let stream = [
        GREETING,
        &method(10, 11),
        &frame(8, b""),
        &publish(b"\x01\0\x01\0\0\0\x04\0<\0(\xCE"),
        &method(60, 80),
    ]
    .concat();
    always(Direction::ToServer, &stream, &stream, 3, |_, _| None);
    let (_, found, _) = passed(Direction::ToServer, &stream, 5, |_, _| None);
    let opened = Method {
        class: 10,
        method: 11,
    };
    let wanted = [opened, Method::BASIC_PUBLISH, Method::BASIC_ACK].map(Unit::Method);
    assert_eq!(found, wanted);
}

#[test]
fn a_lost_publish_takes_its_content_with_it_and_nothing_else() {
    let (first, last) = (publish(b"first"), publish(b"last"));
    let heartbeat = frame(8, b"");
    let stream = [GREETING, &first, &publish(b"lost"), &heartbeat, &last].concat();
    let expected = [GREETING, &first, &heartbeat, &last].concat();
    always(Direction::ToServer, &stream, &expected, 3, |number, _| {
        (number == 2).then_some(Harm::Lose)
    });
}

#[test]
fn content_of_another_channel_stays() {
    let mut other = publish(b"other");
    // Every frame of it, by its place: a method of 13 bytes, a header of 14, a body of 5, one of 21.
    for at in [0, 21, 21 + 22, 21 + 22 + 13] {
        other[at + 2] = 2;
    }
    let ours = publish(b"lost!");
    // One frame of each in turn.
    let cuts = [0, 21, 43, 56, other.len()];
    let mut stream = GREETING.to_vec();
    for frame in cuts.windows(2) {
        stream.extend_from_slice(&ours[frame[0]..frame[1]]);
        stream.extend_from_slice(&other[frame[0]..frame[1]]);
    }
    let expected = [GREETING, &other].concat();
    always(Direction::ToServer, &stream, &expected, 2, |number, _| {
        (number == 1).then_some(Harm::Lose)
    });
}

#[test]
fn a_lost_confirm_is_left_out() {
    let confirm = method(60, 80);
    let stream = [&method(10, 10)[..], &confirm, &method(60, 60)].concat();
    let expected = [method(10, 10), method(60, 60)].concat();
    always(Direction::ToClient, &stream, &expected, 3, |_, unit| {
        (unit == Unit::Method(Method::BASIC_ACK)).then_some(Harm::Lose)
    });
}

#[test]
fn a_damaged_method_is_longer_by_nothing_and_wrong_in_its_first_byte() {
    let stream = [method(10, 10), method(60, 60)].concat();
    let mut expected = stream.clone();
    expected[21] = !1;
    always(Direction::ToClient, &stream, &expected, 2, |number, _| {
        (number == 2).then_some(Harm::Damage)
    });
}

#[test]
fn what_ends_the_connection_lets_pass_what_came_before_it() {
    let stream = [method(10, 10), method(60, 80), method(60, 60)].concat();
    for at in 1..stream.len() {
        let ends = Harm::LoseThenHold(Duration::from_secs(1));
        let (out, _, ended) = passed(Direction::ToClient, &stream, at, |number, _| {
            (number == 2).then_some(ends)
        });
        assert_eq!((&out[..], ended), (&stream[..21], Some(ends)));
    }
}

#[test]
fn what_is_no_amqp_passes_unread() {
    let greeting = [GREETING, b"GET / HTTP/1.1\r\n\r\n"].concat();
    let short_method = [GREETING, &frame(1, &[0, 60, 0]), &method(60, 40)].concat();
    let no_end = [GREETING, &frame(8, b"")[..7], &[0], &method(60, 40)].concat();
    let other = *b"AMQ and something else";
    for stream in [&greeting[..], &short_method, &no_end, &other, b"\x16\x03"] {
        always(Direction::ToServer, stream, stream, 0, |_, _| {
            Some(Harm::Lose)
        });
    }
}

const REPLIES: [&[u8]; 18] = [
    b"+OK\r\n",
    b"-ERR a text: $5 *3\r\n",
    b":-12\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"$0\r\n\r\n",
    b"$7\r\n+a\r\n*3\r\r\n",
    b"*0\r\n",
    b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n*1\r\n*0\r\n$-1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5e3\r\n",
    b"(3492890328409238509324850943850943825024385\r\n",
    b"!5\r\nERR x\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n~2\r\n:1\r\n:2\r\n",
    b"|1\r\n+ttl\r\n:5\r\n*1\r\n+x\r\n",
    b"$3\r\nend\r\n",
];

#[test]
fn every_reply_of_redis_is_one_reply() {
    let stream = REPLIES.concat();
    always(
        Direction::ToClient,
        &stream,
        &stream,
        REPLIES.len(),
        |_, _| None,
    );
}

#[test]
fn each_reply_can_be_left_out_alone() {
    let stream = REPLIES.concat();
    for lost in 0..REPLIES.len() {
        let expected = [REPLIES[..lost].concat(), REPLIES[lost + 1..].concat()].concat();
        let (units, harm) = (REPLIES.len(), Some(Harm::Lose));
        always(
            Direction::ToClient,
            &stream,
            &expected,
            units,
            |number, _| harm.filter(|_| number == lost + 1),
        );
    }
}

#[test]
fn pushes_are_no_replies() {
    let push = b">3\r\n+message\r\n$1\r\na\r\n*1\r\n:1\r\n";
    let stream = [&push[..], b":1\r\n", push, b":2\r\n", push].concat();
    let expected = [&push[..], push, b":2\r\n", push].concat();
    always(Direction::ToClient, &stream, &expected, 2, |number, _| {
        (number == 1).then_some(Harm::Lose)
    });
}

#[test]
fn what_is_no_reply_passes_unread_and_no_length_overflows() {
    for bad in [
        &b"*99999999999999999999\r\n+OK\r\n"[..],
        b"%18446744073709551615\r\n+OK\r\n",
        b"$18446744073709551615\r\n+OK\r\n",
        b"*2\r\n*18446744073709551615\r\n+OK\r\n",
        b"*?\r\n+OK\r\n",
        b"$3\rx\n+OK\r\n",
    ] {
        let stream = [b":1\r\n", bad].concat();
        always(Direction::ToClient, &stream, &stream, 2, |_, _| None);
    }
}

#[test]
fn a_deep_nesting_takes_no_memory() {
    let stream = [b"*1\r\n".repeat(100_000), b"+x\r\n+OK\r\n".to_vec()].concat();
    let (out, found, _) = passed(Direction::ToClient, &stream, 1000, |number, _| {
        (number == 1).then_some(Harm::Lose)
    });
    assert_eq!((&out[..], found.len()), (&b"+OK\r\n"[..], 2));
}
