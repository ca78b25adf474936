//! What a service sends back to whoever asked.

use bytes::Bytes;
use longshore_core::{Destination, Envelope, Outgoing, Text, content_id, derived_id};

use crate::{Fault, codec};

/// Says which reply it is: `part`, `last` or `fault`.
pub(crate) const REPLY: &str = "longshore-reply";
/// Counts the replies to one request, upwards over all its attempts.
pub(crate) const NUMBER: &str = "longshore-reply-number";
/// Replies of one start of a handler.
pub(crate) const MOST_PARTS: u32 = 999_999;

const LONGEST_KIND: usize = 128;

/// A reply on its way to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One of several.
    Part(u32, Bytes),
    /// The result.
    Last(Bytes),
    /// It could not be done.
    Fault(Bytes),
}

impl Answer {
    /// A fault, as the bytes that travel.
    pub(crate) fn fault(fault: &Fault) -> Self {
        Self::Fault(serde_json::to_vec(fault).unwrap_or_default().into())
    }

    /// The last answer as one piece, to be kept with the mark of its request.
    pub(crate) fn store(&self) -> Bytes {
        let (phase, body) = match self {
            Self::Part(_, body) | Self::Last(body) => (b'l', body),
            Self::Fault(body) => (b'f', body),
        };
        let mut stored = Vec::with_capacity(body.len() + 1);
        stored.push(phase);
        stored.extend_from_slice(body);
        stored.into()
    }

    /// What [`store`](Self::store) kept; `None` for what it never wrote.
    pub(crate) fn stored(mut stored: Bytes) -> Option<Self> {
        let body = stored.split_off(1.min(stored.len()));
        match &*stored {
            b"l" => Some(Self::Last(body)),
            b"f" => Some(Self::Fault(body)),
            _ => None,
        }
    }

    /// The message that carries it; `None` where the request names no address.
    pub(crate) fn to(self, request: &Envelope, attempt: u32) -> Option<Outgoing> {
        let address = request.reply_to.clone()?;
        let (phase, place, body) = match self {
            Self::Part(place, body) => ("part", place, body),
            Self::Last(body) => ("last", MOST_PARTS + 1, body),
            Self::Fault(body) => ("fault", MOST_PARTS + 1, body),
        };
        let number = u64::from(attempt) * u64::from(MOST_PARTS + 1) + u64::from(place);
        let mut envelope = Envelope::new(kind(&request.kind), body);
        let asked = match request.id.is_empty() {
            true => content_id(request),
            false => request.id.clone(),
        };
        envelope.id = derived_id(&format!("{asked}\0{number}"), u32::MAX);
        envelope.content_type = codec::JSON.into();
        envelope.correlation_id = match &request.correlation_id {
            Some(id) => Some(id.clone()),
            None if request.id.is_empty() => None,
            None => Some(request.id.clone()),
        };
        envelope.headers = vec![
            (REPLY.into(), Bytes::from_static(phase.as_bytes())),
            (NUMBER.into(), number.to_string().into()),
        ];
        Some(Outgoing {
            to: Destination::Reply(address),
            envelope,
            delay: std::time::Duration::ZERO,
            dedup_window: None,
        })
    }
}

/// The type of a reply: the request's with `.reply`.
fn kind(request: &Text) -> Text {
    let kind = format!("{request}.reply");
    match kind.len() {
        ..=LONGEST_KIND => kind.into(),
        _ => "longshore.reply".into(),
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::ReplyAddress;

    use super::*;

    fn request() -> Envelope {
        let mut request = Envelope::new("quote.get", "{}");
        request.id = "a".into();
        request.reply_to = Some(ReplyAddress::checked("there"));
        request
    }

    fn number(out: &Outgoing) -> u64 {
        let text = out.envelope.header(NUMBER).expect("it is set");
        text.parse().expect("a number")
    }

    #[test]
    fn numbers_grow_over_the_parts_and_attempts_of_a_request() {
        let to = |answer: Answer, attempt| answer.to(&request(), attempt).expect("an address");
        let answers = [
            to(Answer::Part(1, Bytes::new()), 1),
            to(Answer::Part(2, Bytes::new()), 1),
            to(Answer::Last(Bytes::new()), 1),
            to(Answer::Part(1, Bytes::new()), 2),
            to(Answer::Fault(Bytes::new()), 2),
        ];
        let numbers: Vec<u64> = answers.iter().map(number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        let ids: std::collections::BTreeSet<_> =
            answers.iter().map(|out| out.envelope.id.clone()).collect();
        assert_eq!(ids.len(), answers.len());
    }

    #[test]
    fn an_answer_names_the_correlation_id_or_else_the_id() {
        let correlation = |request: &Envelope| {
            let out = Answer::Last(Bytes::new()).to(request, 1);
            out.and_then(|out| out.envelope.correlation_id)
        };
        let mut request = request();
        assert_eq!(correlation(&request).as_deref(), Some("a"));
        request.correlation_id = Some("c".into());
        assert_eq!(correlation(&request).as_deref(), Some("c"));
        request.reply_to = None;
        assert_eq!(correlation(&request), None);
    }

    #[test]
    fn what_is_stored_comes_back() {
        for answer in [Answer::Last("x".into()), Answer::Fault("".into())] {
            assert_eq!(Answer::stored(answer.store()), Some(answer));
        }
        assert_eq!(Answer::stored(Bytes::new()), None);
        assert_eq!(Answer::stored("x".into()), None);
    }

    #[test]
    fn the_type_of_a_reply_keeps_the_limit() {
        assert_eq!(kind(&"quote.get".into()), "quote.get.reply");
        assert_eq!(kind(&"x".repeat(128).into()), "longshore.reply");
    }
}
