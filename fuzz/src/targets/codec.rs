//! Bodies that anybody may have written.

use std::collections::BTreeMap;

use longshore::fuzzing::{decode, encode, fault};
use longshore_core::Envelope;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::octets::Octets;

/// A message of many shapes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u64,
    #[serde(default)]
    price: f64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    parts: Vec<Order>,
    #[serde(default)]
    names: BTreeMap<String, Option<i8>>,
    #[serde(default)]
    what: Option<What>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum What {
    Nothing,
    One(char),
    Two(bool, i128),
    Named { inside: Box<What> },
}

/// A body is a message, or an error that says where it is wrong and repeats nothing of it. What was
/// decoded can be encoded, and is then the same.
pub fn codec(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let types = [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
        "text/plain",
    ];
    let mut envelope = Envelope::new("order", "");
    envelope.content_type = match octets.octet() {
        n @ 0..5 => types[usize::from(n)].into(),
        255 => octets.text().into(),
        _ => "".into(),
    };
    let body = octets.rest();
    envelope.body = bytes::Bytes::copy_from_slice(body);

    let value = survives::<Value>(&envelope);
    if value.is_some() {
        assert!(depth(body) <= 128, "nested {} deep", depth(body));
    }
    survives::<Order>(&envelope);
    survives::<Vec<Option<What>>>(&envelope);
    survives::<(String, f64)>(&envelope);
    survives::<()>(&envelope);
    if let Ok(fault) = fault(body) {
        let shown = format!("{fault} {} {}", fault.reason(), fault.detail());
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.len() < 20_000, "{} bytes", shown.len());
    }
}

fn survives<T>(envelope: &Envelope) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    match decode::<T>(envelope, "Order") {
        Ok(value) => {
            let body = encode(&value, "Order").expect("what was decoded can be encoded");
            let mut again = envelope.clone();
            again.body = body.into();
            assert_eq!(decode(&again, "Order"), Ok(value), "other than it was sent");
            decode(envelope, "Order").ok()
        }
        Err(told) => {
            assert_repeats_nothing(&told);
            None
        }
    }
}

/// Words of ours and two numbers, or the content type in a form that is safe to show.
fn assert_repeats_nothing(told: &str) {
    if let Some(shown) = told.strip_prefix("no codec for the content type ") {
        assert!(
            shown.len() <= 66 && !shown.contains(char::is_control),
            "{told:?}"
        );
        return;
    }
    let place = told.strip_prefix("the body is no Order: ").expect("ours");
    let whats = [
        "it could not be read",
        "not valid JSON, or nested deeper than 128",
        "valid JSON of another shape",
        "it ends too early",
    ];
    let place = whats.iter().find_map(|what| place.strip_prefix(what));
    let place = place.and_then(|place| place.strip_prefix(" (line "));
    let place = place.and_then(|place| place.strip_suffix(')'));
    let numbers = place.and_then(|place| place.split_once(", column "));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    assert!(
        numbers.is_some_and(|(l, c)| digits(l) && digits(c)),
        "{told:?}"
    );
}

/// How deep the brackets of JSON nest.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut text, mut escaped) = (0_usize, 0, false, false);
    for octet in json {
        match (text, *octet) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => text = !text,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
