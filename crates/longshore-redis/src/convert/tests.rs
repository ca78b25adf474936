use super::*;

const PREFIX: &str = "ls:reply:";

fn fields(pairs: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
    let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    pairs.iter().map(|(n, v)| (owned(n), owned(v))).collect()
}

fn read_pairs(pairs: &[(&str, &str)]) -> Read {
    read(&fields(pairs), &Limits::default(), PREFIX)
}

fn reason(read: &Read) -> Option<&str> {
    read.defect.as_ref().map(|d| d.reason.as_str())
}

#[test]
fn what_is_written_is_read_back() {
    let mut envelope = Envelope::new("order.placed", "{}");
    envelope.id = "7".into();
    envelope.key = Some("customer".into());
    envelope.correlation_id = Some("c".into());
    envelope.reply_to = Some(ReplyAddress::checked("ls:reply:x"));
    envelope.sent_at = UNIX_EPOCH.checked_add(Duration::from_millis(1234));
    envelope.expires_at = UNIX_EPOCH.checked_add(Duration::from_millis(5678));
    envelope.headers = vec![
        ("b".into(), Bytes::from_static(&[0, 255])),
        ("a".into(), Bytes::from_static(b"1")),
        ("b".into(), Bytes::from_static(b"2")),
    ];
    let mut written = Vec::new();
    write(&envelope, |n, v| {
        written.push((Bytes::copy_from_slice(n), Bytes::copy_from_slice(v)))
    });
    let read = super::read(&written, &Limits::default(), PREFIX);
    assert_eq!(read.defect, None);
    let back = read.envelope;
    assert_eq!(
        (back.id, back.kind, back.body),
        (envelope.id, envelope.kind, envelope.body.clone())
    );
    assert_eq!(
        (back.key, back.correlation_id),
        (envelope.key, envelope.correlation_id)
    );
    assert_eq!(
        (back.reply_to, back.headers),
        (envelope.reply_to, envelope.headers)
    );
    assert_eq!(
        (back.sent_at, back.expires_at),
        (envelope.sent_at, envelope.expires_at)
    );
}

#[test]
fn a_body_alone_is_a_message_and_none_is_hostile() {
    let read = read_pairs(&[("body", "x")]);
    assert_eq!((reason(&read), &read.envelope.kind[..]), (None, ""));
    assert_eq!(reason(&read_pairs(&[("type", "x")])), Some("hostile"));
    assert_eq!(
        reason(&read_pairs(&[("body", "x"), ("body", "y")])),
        Some("hostile")
    );
}

#[test]
fn what_breaks_a_limit_is_a_defect_and_leaves_no_body_in_memory() {
    let long = "x".repeat(129);
    let large = "x".repeat(1024 * 1024 + 1);
    for (pair, expected) in [
        (("id", long.as_str()), "hostile"),
        (("type", &long), "hostile"),
        (("id", "a\nb"), "hostile"),
        ((&format!("h.{long}"), "x"), "hostile"),
        (("h.", "x"), "hostile"),
    ] {
        let read = read_pairs(&[("body", "x"), pair]);
        assert_eq!(reason(&read), Some(expected), "{}", pair.0);
        assert!(read.envelope.body.is_empty() && read.envelope.headers.is_empty());
    }
    let read = read_pairs(&[("id", &long), ("body", &large)]);
    assert_eq!(
        (reason(&read), read.envelope.body.len()),
        (Some("too-large"), 0)
    );
    let names: Vec<String> = (0..65).map(|n| format!("unknown{n}")).collect();
    let mut pairs: Vec<_> = names.iter().map(|n| (n.as_str(), "")).collect();
    pairs.push(("body", ""));
    assert_eq!(reason(&read_pairs(&pairs)), Some("hostile"));
    pairs.remove(0);
    assert_eq!(reason(&read_pairs(&pairs)), None);
    let bad = [
        (Bytes::from_static(b"h.\xff"), Bytes::new()),
        (Bytes::from_static(b"body"), Bytes::new()),
    ];
    assert_eq!(
        reason(&super::read(&bad, &Limits::default(), PREFIX)),
        Some("hostile")
    );
}

#[test]
fn numbers_are_clamped_and_foreign_reply_addresses_ignored() {
    let attempts = |text: &str| read_pairs(&[("body", ""), ("attempt", text)]).attempts;
    assert_eq!(attempts("3"), 3);
    assert_eq!(attempts("18446744073709551615"), 1_000_000_000);
    assert_eq!([attempts("-1"), attempts("x"), attempts("")], [0, 0, 0]);
    let at = |text: &str| {
        read_pairs(&[("body", ""), ("expires_at", text)])
            .envelope
            .expires_at
    };
    assert_eq!(
        at("18446744073709551615").is_some(),
        at("18446744073709551615").is_some()
    );
    assert_eq!(at("soon"), None);
    let reply = |text: &str| {
        read_pairs(&[("body", ""), ("reply_to", text)])
            .envelope
            .reply_to
    };
    assert!(reply("ls:reply:1").is_some());
    assert!(reply("ls:{orders}:stream").is_none());
}

#[test]
fn packed_values_are_unpacked_and_torn_ones_refused() {
    let envelope = Envelope::new("t", "body");
    let packed = Bytes::from(pack(&envelope, Some("x"), "n", "p.high:"));
    let values = unpack(&packed).expect("packed");
    let texts: Vec<_> = values.iter().map(|v| &v[..]).collect();
    assert_eq!(
        texts,
        [
            &b"1"[..],
            b"n",
            b"p.high:",
            b"type",
            b"t",
            b"body",
            b"body",
            b"dedup",
            b"x"
        ]
    );
    assert!(unpack(&packed.slice(..packed.len() - 1)).is_none());
    assert!(unpack(&Bytes::from_static(&[255, 255, 255, 255])).is_none());
}

#[test]
fn how_a_message_stands_to_the_window_is_in_its_fields_and_no_header() {
    let read = |more: &[(&str, &str)]| {
        let mut pairs = vec![("body", "x")];
        pairs.extend(more);
        read_pairs(&pairs)
    };
    assert_eq!(read(&[]).standing, Standing::Unknown);
    assert_eq!(read(&[("dedup", "x")]).standing, Standing::Held);
    for redriven in [
        &[("dedup", "x"), ("redriven", "1")][..],
        &[("redriven", "1"), ("dedup", "x")],
    ] {
        let read = read(redriven);
        assert_eq!(read.standing, Standing::Exempt);
        assert!(read.envelope.headers.is_empty());
    }
}
