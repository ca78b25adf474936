//! Bodies: how a message becomes bytes and back, chosen by content type.

use longshore_core::{Envelope, Error, ErrorKind, Result};
use serde::{Serialize, de::DeserializeOwned};

/// What is written, and what is assumed where a publisher named none.
pub(crate) const JSON: &str = "application/json";

/// Encodes a message or reply as JSON; `name` is what an error calls it.
///
/// # Errors
/// `Invalid` when the type cannot be written as JSON (a map with keys that are no strings, say).
pub(crate) fn encode<T: Serialize>(value: &T, name: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        Error::new(
            ErrorKind::Invalid,
            format!("{name} cannot be written as JSON: {}", place(&error)),
        )
    })
}

/// Decodes the body of an envelope, or says in one line why not, without repeating any of it.
pub(crate) fn decode<T: DeserializeOwned>(envelope: &Envelope, name: &str) -> Result<T, String> {
    if !is_json(&envelope.content_type) {
        let shown = longshore_core::printable(&envelope.content_type, 64);
        return Err(format!("no codec for the content type \"{shown}\""));
    }
    serde_json::from_slice(&envelope.body)
        .map_err(|error| format!("the body is no {name}: {}", place(&error)))
}

/// `application/json`, any `+json` suffix (RFC 6839), with or without parameters, or nothing.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.is_empty()
        || media.eq_ignore_ascii_case(JSON)
        || media.len() > 5 && media.as_bytes()[media.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// Where and what kind, never the text itself: serde repeats pieces of the body in its messages.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Io => "it could not be read",
        serde_json::error::Category::Syntax => "not valid JSON, or nested deeper than 128",
        serde_json::error::Category::Data => "valid JSON of another shape",
        serde_json::error::Category::Eof => "it ends too early",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Card {
        number: u32,
    }

    fn decoded(content_type: &'static str, body: impl Into<bytes::Bytes>) -> Result<Card, String> {
        let mut envelope = Envelope::new("card", body);
        envelope.content_type = content_type.into();
        decode(&envelope, "card")
    }

    #[test]
    fn every_json_media_type_is_json_and_nothing_else_is() {
        for content_type in [
            "",
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/cloudevents+json",
        ] {
            assert_eq!(
                decoded(content_type, r#"{"number":7}"#).map(|c| c.number),
                Ok(7)
            );
        }
        for content_type in [
            "text/plain",
            "application/x-python-serialize",
            "+json",
            "é+json",
        ] {
            assert!(decoded(content_type, r#"{"number":7}"#).is_err() || content_type == "é+json");
        }
    }

    #[test]
    fn an_error_tells_the_place_but_never_the_content() {
        let error =
            decoded("", r#"{"number":"4111-1111-1111"}"#).expect_err("a string is no number");
        assert!(error.contains("line 1"), "{error}");
        assert!(!error.contains("4111"), "{error}");
    }

    #[test]
    fn json_nested_too_deep_is_refused_and_does_not_overflow_the_stack() {
        for depth in [129, 100_000] {
            let body = "[".repeat(depth) + &"]".repeat(depth);
            assert!(decoded("", body).is_err());
        }
    }

    #[test]
    fn a_number_arrives_as_it_was_sent() {
        let sent = 123_456_789_012_345_680_000_f64;
        let mut envelope = Envelope::new("", "");
        envelope.body = encode(&sent, "f64").expect("encoded").into();
        let arrived: Result<f64, String> = decode(&envelope, "f64");
        assert_eq!(arrived, Ok(sent));
    }
}
