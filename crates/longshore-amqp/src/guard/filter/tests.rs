use super::*;

const CHANNEL: u16 = 7;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
    out
}

fn deliver(channel: u16, routing_key: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 60];
    payload.extend(b"\x03tag");
    payload.extend(42_u64.to_be_bytes());
    payload.push(0);
    payload.push(0);
    payload.push(routing_key.len() as u8);
    payload.extend_from_slice(routing_key);
    frame(METHOD, channel, &payload)
}

fn header(channel: u16, body: u64, flags: u16, rest: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body.to_be_bytes());
    payload.extend(flags.to_be_bytes());
    payload.extend_from_slice(rest);
    frame(HEADER, channel, &payload)
}

fn payload(frame: &[u8]) -> &[u8] {
    &frame[7..frame.len() - 1]
}

fn body(channel: u16, octets: &[u8]) -> Vec<u8> {
    frame(BODY, channel, octets)
}

fn message(channel: u16, octets: &[u8]) -> Vec<u8> {
    let mut out = deliver(channel, b"orders");
    out.extend(header(channel, octets.len() as u64, 0, &[]));
    if !octets.is_empty() {
        out.extend(body(channel, octets));
    }
    out
}

fn bomb(levels: usize) -> Vec<u8> {
    let mut inside: Vec<u8> = Vec::new();
    let mut lengths = Vec::new();
    for _ in 0..levels {
        lengths.push(inside.len() as u32 + 5 * lengths.len() as u32);
    }
    for length in lengths.iter().rev() {
        inside.push(b'A');
        inside.extend(length.to_be_bytes());
    }
    let mut table = b"\x01h".to_vec();
    table.extend(inside);
    let mut out = (table.len() as u32).to_be_bytes().to_vec();
    out.extend(table);
    out
}

fn watch() -> Arc<Watch> {
    Arc::new(Watch::new(Limits::default(), 5, None))
}

fn filtered(watch: &Arc<Watch>, input: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut filter = Filter::new(watch.clone());
    let mut out = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&input.len()]) {
        filter
            .feed(&input[from..cut], &mut out)
            .expect("a stream the guard accepts");
        from = cut;
    }
    out
}

/// Small and repeatable; the tests need splits, not randomness of quality.
fn split_points(seed: u64, length: usize) -> Vec<usize> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut cuts: Vec<usize> = (0..next() % 40).map(|_| next() % length).collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn ordinary_traffic_passes_octet_for_octet_however_it_is_split() {
    let mut input = frame(METHOD, 1, &[0, 20, 0, 11, 0, 0, 0, 0]);
    input.extend(frame(HEARTBEAT, 0, &[]));
    input.extend(message(CHANNEL, b"hello"));
    input.extend(message(8, b""));
    input.extend(frame(METHOD, 2, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
    let watch = watch();
    for cut in 0..input.len() {
        assert_eq!(filtered(&watch, &input, &[cut]), input, "cut at {cut}");
    }
    for seed in 1..500 {
        let cuts = split_points(seed, input.len());
        assert_eq!(filtered(&watch, &input, &cuts), input, "{cuts:?}");
    }
}

#[test]
fn a_table_20_000_levels_deep_becomes_a_blank_delivery_and_the_next_is_untouched() {
    let mut bad = deliver(CHANNEL, b"orders");
    bad.extend(header(CHANNEL, 3, 1 << 13, &bomb(20_000)));
    bad.extend(body(CHANNEL, b"abc"));
    let good = message(CHANNEL, b"good");
    let watch = watch();
    let detail = "the headers are nested deeper than the limit";
    let mut expected = deliver(CHANNEL, b"orders");
    expected.extend(blank_frame(
        CHANNEL,
        watch.marker(),
        &Defect::new(Reason::Hostile, detail),
        fingerprint(payload(&header(CHANNEL, 3, 1 << 13, &bomb(20_000)))),
    ));
    expected.extend(&good);
    bad.extend(&good);
    assert_eq!(filtered(&watch, &bad, &[]), expected);
    for seed in 1..50 {
        let cuts = split_points(seed, bad.len());
        assert_eq!(filtered(&watch, &bad, &cuts), expected, "{cuts:?}");
    }
}

#[test]
fn a_body_over_the_limit_of_its_channel_is_swallowed_beside_other_channels() {
    let watch = watch();
    let limits = Limits {
        body: 4,
        ..Limits::default()
    };
    watch.limit(CHANNEL, limits);
    let mut input = deliver(CHANNEL, b"orders");
    input.extend(header(CHANNEL, 10, 0, &[]));
    input.extend(body(CHANNEL, b"01234"));
    input.extend(message(8, b"between"));
    input.extend(body(CHANNEL, b"56789"));
    input.extend(message(CHANNEL, b"four"));
    let mut expected = deliver(CHANNEL, b"orders");
    expected.extend(blank_frame(
        CHANNEL,
        watch.marker(),
        &Defect::too_large(10, 4),
        fingerprint(payload(&header(CHANNEL, 10, 0, &[]))),
    ));
    expected.extend(message(8, b"between"));
    expected.extend(message(CHANNEL, b"four"));
    for cut in 0..input.len() {
        assert_eq!(filtered(&watch, &input, &[cut]), expected, "cut at {cut}");
    }
}

#[test]
fn a_return_is_noted_and_never_passes() {
    let watch = watch();
    let mut payload = vec![0, 60, 0, 50];
    payload.extend(312_u16.to_be_bytes());
    payload.extend(b"\x08NO_ROUTE\x00\x06orders");
    let mut input = frame(METHOD, CHANNEL, &payload);
    input.extend(header(CHANNEL, 5, 1 << 7, b"\x02id"));
    input.extend(body(CHANNEL, b"hello"));
    let ack = frame(METHOD, CHANNEL, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    input.extend(&ack);
    let key = ReturnOf("id", "orders").key();
    for cut in 0..input.len() {
        assert_eq!(filtered(&watch, &input, &[cut]), ack, "cut at {cut}");
        assert_eq!(watch.returns.take(&ReturnOf("id", "other").key()), None);
        assert_eq!(watch.returns.take(&key), Some(312));
        assert_eq!(watch.returns.take(&key), None);
    }
}

struct ReturnOf(&'static str, &'static str);
impl ReturnOf {
    fn key(&self) -> Key {
        Key {
            channel: CHANNEL,
            message_id: self.0.as_bytes().into(),
            routing_key: self.1.as_bytes().into(),
        }
    }
}

#[test]
fn a_marker_from_outside_is_an_ordinary_header() {
    let mut table = Vec::new();
    let name = b"longshore-defect";
    table.push(name.len() as u8);
    table.extend(name);
    table.extend(b"S\x00\x00\x00\x01x");
    let mut rest = (table.len() as u32).to_be_bytes().to_vec();
    rest.extend(&table);
    let mut input = deliver(CHANNEL, b"orders");
    input.extend(header(CHANNEL, 0, 1 << 13, &rest));
    let watch = watch();
    assert_eq!(filtered(&watch, &input, &[]), input);
    assert_ne!(watch.marker().as_bytes(), name);
}

#[test]
fn a_routing_key_that_is_no_text_is_mended() {
    let input = [deliver(CHANNEL, b"or\xffers"), header(CHANNEL, 0, 0, &[])].concat();
    let expected = [deliver(CHANNEL, b"or?ers"), header(CHANNEL, 0, 0, &[])].concat();
    assert_eq!(filtered(&watch(), &input, &[]), expected);
}

#[test]
fn the_server_introduces_itself() {
    let mut table = b"\x07productS\x00\x00\x00\x08RabbitMQ".to_vec();
    table.extend(b"\x07versionS\x00\x00\x00\x063.10.8");
    table.extend(b"\x01cF\x00\x00\x00\x04\x01nt\x01");
    let mut payload = vec![0, 10, 0, 10, 0, 9];
    payload.extend((table.len() as u32).to_be_bytes());
    payload.extend(table);
    payload.extend(b"\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US");
    let input = frame(METHOD, 0, &payload);
    let watch = watch();
    assert_eq!(filtered(&watch, &input, &[9, 30]), input);
    assert_eq!(watch.server().rabbitmq(), Some((3, 10)));
}

#[test]
fn broken_framing_ends_the_connection_without_allocating_what_it_claims() {
    let fails = |input: &[u8]| {
        let mut filter = Filter::new(watch());
        let result = filter.feed(input, &mut Vec::new());
        assert!(filter.payload.capacity() <= 2 * MAX);
        result.is_err()
    };
    assert!(fails(&[HEADER, 0, 1, 0xff, 0xff, 0xff, 0xff]));
    assert!(fails(&[BODY, 0, 1, 0x7f, 0, 0, 0]));
    assert!(fails(&[4, 0, 1, 0, 0, 0, 0]));
    assert!(fails(&[METHOD, 0, 1, 0, 0, 0, 0]));
    assert!(fails(&[HEARTBEAT, 0, 0, 0, 0, 0, 0, 0]));
    assert!(fails(&frame(HEADER, 1, &[0, 60])));
}

#[test]
fn random_octets_are_answered_and_never_panic() {
    let mut seed_input = message(CHANNEL, b"hello");
    seed_input.extend(header(CHANNEL, 3, 1 << 13, &bomb(12)));
    for seed in 1..3_000_u64 {
        let mut input = seed_input.clone();
        for at in split_points(seed, input.len()) {
            input[at] ^= (seed % 255) as u8 + 1;
        }
        let _ = Filter::new(watch()).feed(&input, &mut Vec::new());
    }
}

#[test]
fn a_server_of_another_protocol_is_left_to_lapin() {
    let input = b"AMQP\x03\x01\x00\x00";
    assert_eq!(filtered(&watch(), input, &[3]), input);
}
