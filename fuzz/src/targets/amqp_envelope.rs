//! From a content header and a body to an envelope, and back.

use std::time::{Duration, UNIX_EPOCH};

use amq_protocol::{
    protocol::BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use longshore_amqp::fuzzing::{self, Arrival};
use longshore_core::{Delivery, Limits, Reason, Standing, content_id};

use super::{
    amqp_wire::{build, frame, parse, payload},
    envelopes::{assert_kept, assert_no_steering, assert_told, seen},
};
use crate::octets::Octets;

const MARKER: &str = "longshore-defect-00000000000000000000000000000007";
const FRAME_MAX: usize = 131_072;

/// Whatever a publisher sends is an envelope within the limits, or a defect. What is an envelope is
/// the same after a publish, a retry, and a redrive; no header of ours steers anything.
///
/// The first octet says how the rest is read: as a content header's payload, or as a plan for one.
pub fn amqp_envelope(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let limits = Limits::default();
    let how = octets.octet();
    let arrival = Arrival {
        marker: MARKER,
        counter: [None, Some("x-delivery-count"), Some("x-acquired-count")]
            [usize::from(how >> 1 & 3) % 3],
        reply_prefix: (how & 8 != 0).then_some("answers."),
        now: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    };
    let payload = match how & 1 {
        0 => octets.string(),
        _ => build(&mut octets, 0),
    };
    let body = octets.rest();
    if let Err(defect) = fuzzing::judge(&payload, &limits) {
        return assert_told(&defect);
    }
    let (_, properties) = parse(&payload).expect("lapin reads what the guard lets pass");
    let size = fuzzing::frame_size(&properties);
    assert_eq!(size, frame(&properties, 0).len(), "the size of a frame");
    if let Some(survives) = fuzzing::marker_survives(&properties) {
        assert!(survives, "a marker");
    }

    let read = |properties: &BasicProperties, now| {
        let arrival = Arrival { now, ..arrival };
        fuzzing::delivery(properties.clone(), body.to_vec(), &arrival, &limits)
    };
    let delivery = read(&properties, arrival.now);
    assert_judged(&delivery, &limits, arrival.reply_prefix);
    let marked = properties
        .headers()
        .as_ref()
        .is_some_and(|headers| headers.contains_key(MARKER));
    if marked {
        return;
    }
    let later = arrival.now + Duration::from_secs(60);
    published(&delivery, |properties| read(properties, later));
    copied(&delivery, |properties| read(properties, later));
    died(&properties, &delivery, |properties| read(properties, later));
}

fn assert_judged(delivery: &Delivery, limits: &Limits, reply_prefix: Option<&str>) {
    let envelope = &delivery.envelope;
    match &delivery.defect {
        None => assert_kept(envelope, limits),
        Some(_) => assert_no_steering(envelope),
    }
    // The first start and a million of copies and of returns.
    assert!((1..=2_000_001).contains(&delivery.attempt));
    if let Some(address) = &envelope.reply_to {
        let address = address.as_str();
        let brokers = ["amq.rabbitmq.reply-to.", "amq.gen-"];
        let mut allowed = brokers.into_iter().chain(reply_prefix);
        assert!(
            allowed.any(|prefix| address.starts_with(prefix)),
            "{address:?}"
        );
        assert!(!address.chars().any(char::is_control), "{address:?}");
    }
    let shown = format!("{envelope:?}");
    assert!(!shown.contains(char::is_control), "{shown}");
}

/// What can be handled can be published, and is then the same.
fn published(delivery: &Delivery, read: impl Fn(&BasicProperties) -> Delivery) {
    if delivery.defect.is_some() {
        return;
    }
    let first = fuzzing::first(&delivery.envelope).expect("published");
    let again = read(&through_the_guard(&first));
    assert_eq!(again.defect, None);
    assert_eq!(again.attempt, 1);
    assert_eq!(seen(&again.envelope), seen(&delivery.envelope));
}

/// A copy is the same message, and so is a copy of a copy.
fn copied(delivery: &Delivery, read: impl Fn(&BasicProperties) -> Delivery) {
    let copy = fuzzing::again(&delivery.envelope, 3).expect("a copy");
    if delivery.defect.is_some() {
        return;
    }
    let again = read(&through_the_guard(&copy));
    assert_eq!(again.defect, None);
    assert_eq!(again.attempt, 4);
    let mut expected = delivery.envelope.clone();
    if expected.id.is_empty() {
        expected.id = content_id(&expected);
        assert_eq!(again.standing, Standing::Exempt);
    } else {
        assert_eq!(again.standing, delivery.standing);
    }
    assert_eq!(seen(&again.envelope), seen(&expected));
    let twice = fuzzing::again(&again.envelope, 3).expect("a copy of a copy");
    assert_eq!(payload(&copy, 0), payload(&twice, 0));
}

/// A dead letter says why, and a redrive sends back what was published.
fn died(
    properties: &BasicProperties,
    delivery: &Delivery,
    read: impl Fn(&BasicProperties) -> Delivery,
) {
    let detail = "why ü".repeat(1000);
    let dead = fuzzing::dead(
        &delivery.envelope,
        &Reason::Exhausted,
        &detail,
        5,
        FRAME_MAX,
    );
    let Ok(dead) = dead else {
        let room = fuzzing::frame_size(properties) + 2048 > FRAME_MAX;
        assert!(room, "only what leaves no room is moved");
        return;
    };
    assert!(frame(&dead, 0).len() <= FRAME_MAX);
    let (reason, told, attempts) = fuzzing::obituary(&dead);
    assert_eq!((reason, attempts), (Some(Reason::Exhausted), 5));
    assert!(detail.starts_with(&told) && told.len() <= 4096);

    let back = fuzzing::restored(&dead, "me");
    let redriven = read(&back);
    assert_eq!(redriven.standing, Standing::Exempt);
    assert_eq!(redriven.attempt, 1);
    assert_no_steering(&redriven.envelope);
    if is_plain(properties) {
        assert_eq!(payload(&back, 0), payload(&expected(properties), 0));
    }
}

/// Written by lapin and read by the guard and lapin.
fn through_the_guard(properties: &BasicProperties) -> BasicProperties {
    let payload = payload(properties, 0);
    let judged = fuzzing::judge(&payload, &Limits::default());
    assert_eq!(judged, Ok(()), "what we write we read");
    parse(&payload).expect("lapin reads what it writes").1
}

/// Whether a plain client could have meant it: it has no header that only we or the broker write.
fn is_plain(properties: &BasicProperties) -> bool {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).is_ok(),
        _ => false,
    };
    let plain = |(name, value): (&ShortString, &AMQPValue)| match name.as_str() {
        "longshore-priority" => text(value),
        "longshore-key" | "longshore-sent-at" => true,
        name => !name.starts_with("longshore-") && !is_brokers(name),
    };
    let headers = properties.headers().as_ref();
    let mut headers = headers.into_iter().flat_map(|table| table.inner().iter());
    let mode = properties.delivery_mode().is_none_or(|mode| mode <= 2);
    let expires = properties.expiration().as_ref();
    let expires = expires.is_none_or(|ms| ms.as_str().parse::<u32>().is_ok());
    let id = properties.message_id().as_ref();
    let id = id.is_none_or(|id| !id.as_str().is_empty());
    let user = properties.user_id().as_ref();
    let user = user.is_none_or(|user| user.as_str() == "me");
    mode && expires && id && user && headers.all(plain)
}

fn is_brokers(name: &str) -> bool {
    matches!(
        name,
        "x-death" | "x-delivery-count" | "x-acquired-count" | "CC" | "BCC"
    ) || ["x-first-death-", "x-last-death-", "x-delivered-by"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What a redrive of this must send back.
fn expected(properties: &BasicProperties) -> BasicProperties {
    let mut table: FieldTable = properties.headers().clone().unwrap_or_default();
    table.insert("longshore-redriven".into(), AMQPValue::Boolean(true));
    properties.clone().with_headers(table)
}
