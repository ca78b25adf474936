use super::*;
use crate::copy;

const NOW: SystemTime = UNIX_EPOCH;

fn rule() -> ReplyRule {
    ReplyRule {
        prefix: Some("replies.".into()),
    }
}

fn read(properties: BasicProperties) -> Arrived {
    arrived(
        properties,
        b"{}".to_vec(),
        "longshore-defect-x",
        Some("x-delivery-count"),
        &rule(),
        NOW,
    )
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}

#[test]
fn a_first_publish_reads_back_as_it_was_written() {
    let mut envelope = Envelope::new("order.placed", "{}");
    envelope.id = "id-1".into();
    envelope.key = Some("customer-42".into());
    envelope.priority = Some("high".into());
    envelope.correlation_id = Some("c".into());
    envelope.sent_at = time(Duration::from_millis(1_700_000_000_123));
    envelope.expires_at = time(Duration::from_millis(1_800_000_000_456));
    envelope.headers = vec![("traceparent".into(), "00-1-2-01".into())];
    let properties = first(&envelope).expect("properties");
    assert!(properties.priority().is_none() && properties.expiration().is_none());
    assert_eq!(*properties.timestamp(), Some(1_700_000_000));
    let back = read(properties);
    let (got, sent) = (&back.envelope, &envelope);
    assert_eq!(got.id, sent.id);
    assert_eq!(got.kind, sent.kind);
    assert_eq!(got.key, sent.key);
    assert_eq!(got.priority, sent.priority);
    assert_eq!(got.correlation_id, sent.correlation_id);
    assert_eq!(got.sent_at, sent.sent_at);
    assert_eq!(got.expires_at, sent.expires_at);
    assert_eq!(got.headers, sent.headers);
    assert_eq!((back.attempts, back.returns), (0, 0));
}

#[test]
fn reserved_headers_and_overlong_names_are_refused_at_publish() {
    for name in ["longshore-attempts", "x-death", "BCC", &"n".repeat(256)] {
        let mut envelope = Envelope::new("t", "");
        envelope.headers = vec![(name.into(), Bytes::new())];
        assert_eq!(
            first(&envelope).err().map(|e| e.kind()),
            Some(ErrorKind::Invalid)
        );
    }
}

#[test]
fn counters_are_clamped_and_only_the_one_this_broker_keeps_counts() {
    let read = |entries: &[(&str, AMQPValue)]| {
        let arrived = read(BasicProperties::default().with_headers(table(entries)));
        (arrived.attempts, arrived.returns)
    };
    let n = AMQPValue::LongLongInt;
    assert_eq!(read(&[("longshore-attempts", n(3))]), (3, 0));
    assert_eq!(read(&[("longshore-attempts", n(-3))]), (0, 0));
    assert_eq!(
        read(&[("longshore-attempts", n(i64::MAX))]),
        (MOST_ATTEMPTS, 0)
    );
    assert_eq!(read(&[("longshore-attempts", AMQPValue::Void)]), (0, 0));
    assert_eq!(read(&[("x-delivery-count", n(2))]), (0, 2));
    assert_eq!(
        read(&[("x-delivery-count", n(1)), ("x-acquired-count", n(4))]),
        (0, 1)
    );
    let server = |version: &str| {
        counter(&Server {
            product: "RabbitMQ".to_owned(),
            version: version.to_owned(),
        })
    };
    assert_eq!(server("3.10.8"), "x-delivery-count");
    assert_eq!(server("4.2.9"), "x-delivery-count");
    assert_eq!(server("4.3.0"), "x-acquired-count");
}

#[test]
fn a_reply_goes_only_where_a_reply_may_go() {
    let address = |to: &str| {
        let properties = BasicProperties::default().with_reply_to(to.into());
        read(properties).envelope.reply_to.is_some()
    };
    assert!(!address("amq.rabbitmq.reply-to.g1h2.abc"));
    assert!(address("amq.gen-xyz"));
    assert!(address("replies.web-1"));
    assert!(!address("orders"));
    assert!(!address("amq.rabbitmq.reply-to"));
    assert!(!address(""));
    assert!(
        !ReplyRule {
            prefix: Some("".into())
        }
        .allows("orders")
    );
}

#[test]
fn a_defect_is_believed_from_the_guard_alone() {
    let told = long("hostile\n00ff\nnested too deep");
    let real = read(
        BasicProperties::default().with_headers(table(&[("longshore-defect-x", told.clone())])),
    );
    let expected = Defect::new(Reason::Hostile, "nested too deep");
    assert_eq!(real.defect, Some(expected));
    let forged =
        read(BasicProperties::default().with_headers(table(&[("longshore-defect", told)])));
    assert_eq!(forged.defect, None);
    assert!(forged.envelope.headers.is_empty());
}

#[test]
fn a_plain_expiration_counts_from_now() {
    let properties = BasicProperties::default().with_expiration("60000".into());
    let at = read(properties).envelope.expires_at;
    assert_eq!(at, Some(NOW + Duration::from_secs(60)));
}

#[test]
fn an_id_that_was_made_for_a_copy_is_none_to_a_dedup_window() {
    let named = BasicProperties::default().with_message_id("a".into());
    let nameless = BasicProperties::default().with_message_id("".into());
    for (published, exempt) in [
        (named, false),
        (nameless, true),
        (BasicProperties::default(), true),
    ] {
        let first = read(published);
        assert!(!first.exempt);
        let retried = copy::again(&first.envelope, 1).expect("a copy");
        assert!(retried.message_id().is_some());
        let retried = read(retried);
        assert_eq!(retried.exempt, exempt);
        let again = read(copy::again(&retried.envelope, 2).expect("a copy"));
        assert_eq!(again.exempt, exempt);
    }
}
