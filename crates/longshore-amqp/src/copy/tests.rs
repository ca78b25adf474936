use std::time::UNIX_EPOCH;

use lapin::types::{ByteArray, FieldArray};

use super::*;
use crate::{convert::arrived, reply_rule::ReplyRule};

fn everything() -> BasicProperties {
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Timestamp(77));
    let mut table = FieldTable::default();
    for (name, value) in [
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-8)),
        ("u8", AMQPValue::ShortShortUInt(8)),
        ("i16", AMQPValue::ShortInt(-16)),
        ("u16", AMQPValue::ShortUInt(16)),
        ("i32", AMQPValue::LongInt(-32)),
        ("u32", AMQPValue::LongUInt(32)),
        ("i64", AMQPValue::LongLongInt(-64)),
        ("f32", AMQPValue::Float(1.5)),
        ("f64", AMQPValue::Double(2.5)),
        ("text", long("text")),
        (
            "octets",
            AMQPValue::ByteArray(ByteArray::from(vec![0, 255])),
        ),
        ("time", AMQPValue::Timestamp(1)),
        ("void", AMQPValue::Void),
        ("table", AMQPValue::FieldTable(inner.clone())),
        (
            "array",
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(inner)])),
        ),
    ] {
        table.insert(name.into(), value);
    }
    BasicProperties::default()
        .with_content_type("a/b".into())
        .with_content_encoding("gzip".into())
        .with_headers(table)
        .with_delivery_mode(1)
        .with_priority(7)
        .with_correlation_id("c".into())
        .with_reply_to("somewhere".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(123)
        .with_type("t".into())
        .with_user_id("me".into())
        .with_app_id("app".into())
        .with_cluster_id("cl".into())
}

fn envelope(properties: BasicProperties) -> Envelope {
    let rule = ReplyRule { prefix: None };
    arrived(properties, b"body".to_vec(), "-", None, &rule, UNIX_EPOCH).envelope
}

fn death<'a>(detail: &'a str, reason: &'a Reason) -> Death<'a> {
    Death {
        reason,
        detail,
        attempts: 5,
        queue: "orders",
        at: UNIX_EPOCH,
    }
}

/// The same, as a redrive sends it back.
fn redriven(source: &BasicProperties) -> BasicProperties {
    let mut table = source.headers().clone().unwrap_or_default();
    table.insert("longshore-redriven".into(), AMQPValue::Boolean(true));
    source.clone().with_headers(table)
}

const FRAME: usize = 131_072;

#[test]
fn everything_a_publisher_can_set_survives_retries_death_and_redrive() {
    let source = everything();
    let once = again(&envelope(source.clone()), 1).expect("a copy");
    assert!(once.priority().is_none() && once.expiration().is_none());
    assert!(once.user_id().is_none());
    assert_eq!(*once.delivery_mode(), Some(2));
    let twice = again(&envelope(once), 2).expect("a copy of a copy");
    let dead = dead(&envelope(twice), &death("why", &Reason::Exhausted), FRAME);
    let dead = dead.expect("a dead letter");
    let told = obituary(&dead);
    assert_eq!(told.reason, Some(Reason::Exhausted));
    assert_eq!((told.detail.as_str(), told.attempts), ("why", 5));
    let back = restored(&dead, "me");
    assert_eq!(back, redriven(&source));
    // The mark stays on its copies until it is a dead letter again.
    let retried = again(&envelope(back), 1).expect("a copy");
    let marked = |properties: &BasicProperties| {
        let table = properties.headers().as_ref();
        table.is_some_and(|table| table.contains_key("longshore-redriven"))
    };
    assert!(marked(&retried));
    let dead = super::dead(&envelope(retried), &death("", &Reason::Exhausted), FRAME);
    assert!(!marked(&dead.expect("a dead letter")));
}

#[test]
fn a_copy_names_the_lane_its_message_lay_in() {
    let mut envelope = envelope(everything());
    envelope.priority = Some("high".into());
    let copy = again(&envelope, 1).expect("a copy");
    let table = copy.headers().clone().expect("headers");
    let lane = headers::text(&table, headers::PRIORITY);
    assert_eq!(lane.as_deref(), Some("high"));
}

#[test]
fn a_foreign_user_is_told_and_not_impersonated() {
    let dead = again(&envelope(everything()), 0).expect("a copy");
    let back = restored(&dead, "somebody-else");
    assert_eq!(*back.user_id(), None);
    let table = back.headers().clone().expect("headers");
    assert_eq!(
        headers::text(&table, headers::USER_ID).as_deref(),
        Some("me")
    );
}

#[test]
fn a_bare_message_is_bare_again_after_redrive() {
    let source = BasicProperties::default();
    let copy = again(&envelope(source.clone()), 3).expect("a copy");
    assert_eq!(
        copy.message_id().as_ref().map(|id| id.as_str().len()),
        Some(32)
    );
    let letter = dead(&envelope(copy), &death("", &Reason::Permanent), FRAME);
    let back = restored(&letter.expect("a dead letter"), "me");
    assert_eq!(back, redriven(&source));
}

#[test]
fn what_the_broker_wrote_is_never_copied() {
    let mut table = FieldTable::default();
    for name in [
        "x-death",
        "x-first-death-queue",
        "x-delivery-count",
        "CC",
        "longshore-forged",
    ] {
        table.insert(name.into(), long("x"));
    }
    table.insert("mine".into(), long("y"));
    let copy = again(&envelope(BasicProperties::default().with_headers(table)), 0);
    let table = copy.expect("a copy").headers().clone().expect("headers");
    let names: Vec<&str> = table.inner().keys().map(ShortString::as_str).collect();
    assert_eq!(names, ["longshore-original", "mine"]);
}

#[test]
fn the_detail_is_cut_to_fit_and_a_message_without_room_is_refused() {
    let of = |header: usize| {
        let mut table = FieldTable::default();
        table.insert("h".into(), long(vec![b'x'; header]));
        envelope(BasicProperties::default().with_headers(table))
    };
    let long_detail = "ä".repeat(5000);
    let letter = dead(&of(10), &death(&long_detail, &Reason::Permanent), FRAME);
    let letter = letter.expect("a dead letter");
    assert_eq!(obituary(&letter).detail.len(), 4096);
    let tight = dead(&of(7000), &death(&long_detail, &Reason::Permanent), 8192);
    let tight = tight.expect("a dead letter with less detail");
    assert!(frame_size(&tight) <= 8192 && frame_size(&tight) > 8180);
    assert!(dead(&of(8000), &death("x", &Reason::Permanent), 8192).is_err());
}

#[test]
fn the_size_of_a_frame_is_counted_to_the_octet() {
    assert_eq!(frame_size(&BasicProperties::default()), 22);
    let id = BasicProperties::default().with_message_id("abc".into());
    assert_eq!(frame_size(&id), 26);
    let mut table = FieldTable::default();
    table.insert("n".into(), AMQPValue::LongLongInt(1));
    let with_table = id.with_headers(table).with_timestamp(1).with_priority(1);
    assert_eq!(frame_size(&with_table), 26 + (4 + 2 + 1 + 8) + 8 + 1);
}

fn moved_by_the_broker(count: i64) -> BasicProperties {
    let mut record = FieldTable::default();
    record.insert("count".into(), AMQPValue::LongLongInt(count));
    record.insert("reason".into(), long("expired"));
    record.insert("time".into(), AMQPValue::Timestamp(9));
    record.insert("original-expiration".into(), long("500"));
    let mut table = FieldTable::default();
    let records = FieldArray::from(vec![AMQPValue::FieldTable(record)]);
    table.insert("x-death".into(), AMQPValue::FieldArray(records));
    for (name, value) in [
        ("longshore-dead-reason", long("permanent")),
        ("longshore-dead-detail", long("forged")),
        ("longshore-dead-attempts", long("7")),
        ("longshore-dead-time", long("1")),
    ] {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

#[test]
fn what_the_broker_moved_has_its_record_and_what_claims_to_be_ours_is_the_publishers() {
    let dead = moved_by_the_broker(1);
    let told = obituary(&dead);
    assert_eq!(told.brokers.as_deref(), Some("expired"));
    assert_eq!((told.reason, told.at), (None, Some(9000)));
    assert_eq!((told.detail.as_str(), told.attempts), ("", 0));
    let back = restored(&dead, "me");
    assert_eq!(back.expiration().as_ref().map(|e| e.as_str()), Some("500"));
    let names = back.headers().as_ref().map(|table| table.inner().len());
    assert_eq!(
        names,
        Some(4 + 1),
        "what the publisher wrote comes back, and our mark"
    );
    // Counted up: the time is that of an entry the publisher may have brought.
    assert_eq!(obituary(&moved_by_the_broker(2)).at, None);
}
