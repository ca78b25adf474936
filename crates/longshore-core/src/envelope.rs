//! What travels.

use std::{any::Any, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::Text;

/// What travels from a publisher to a handler. How each field looks on a broker is the public wire
/// format (`docs/wire.md`).
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Envelope {
    /// Names the message over all its tries. Empty where a plain client sent none.
    pub id: Text,
    /// The message type's wire name. Empty where a plain client sent none.
    pub kind: Text,
    /// The encoded message. Transports never look inside.
    pub body: Bytes,
    /// The media type of the body. Empty means `application/json`.
    pub content_type: Text,
    /// The session key.
    pub key: Option<Text>,
    /// The lane the message was published to, where not the normal one.
    pub priority: Option<Text>,
    /// Ties a reply to its request.
    pub correlation_id: Option<Text>,
    /// Where a reply may go.
    pub reply_to: Option<ReplyAddress>,
    /// When it was published, to the millisecond where the publisher was a Longshore client.
    pub sent_at: Option<SystemTime>,
    /// From when on no handler may see it.
    pub expires_at: Option<SystemTime>,
    /// The user's headers in the order sent, `traceparent` and `tracestate` among them. Values
    /// that are no text on the broker (numbers, tables) appear in a readable form; the original
    /// is kept in `native`.
    pub headers: Vec<(Text, Bytes)>,
    /// What the broker knows of the message and this struct has no field for, opaque to all but
    /// the transport that made it, so that a dead letter can be complete.
    pub native: Option<Arc<dyn Any + Send + Sync>>,
}

impl Envelope {
    /// An envelope of this type with this body and nothing else.
    pub fn new(kind: impl Into<Text>, body: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            body: body.into(),
            ..Self::default()
        }
    }

    /// The first header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()
    }
}

impl fmt::Debug for Envelope {
    /// Sizes instead of contents: bodies and header values never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &crate::printable(&self.id, 64))
            .field("kind", &crate::printable(&self.kind, 64))
            .field("body_bytes", &self.body.len())
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

/// Where a reply may go. Made by a transport or checked against its allow-list when a message is
/// received; the framework never builds one from a message's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyAddress(Text);

impl ReplyAddress {
    /// For transports: an address that has passed the allow-list.
    pub fn checked(address: impl Into<Text>) -> Self {
        Self(address.into())
    }

    /// The address as the transport wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
