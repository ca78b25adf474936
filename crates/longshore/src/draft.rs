//! A message about to be published.

use std::time::Duration;

use bytes::Bytes;
use longshore_core::{
    Envelope, Error, ErrorKind, ReplyAddress, Result, Text, chaos::Flaw, defaults,
};

use crate::{
    Message, codec,
    queue::{NORMAL, lane_name},
};

/// A message about to be published, with what belongs to it and not to its body.
///
/// A mistake (a body that cannot be encoded, a name that is too long) is kept and becomes the
/// answer of the publish, so that in a batch it costs its neighbours nothing.
#[derive(Debug)]
pub struct Draft {
    envelope: Envelope,
    delay: Duration,
    expires_after: Option<Duration>,
    mistake: Option<Error>,
}

impl Draft {
    /// Encodes a message.
    pub fn new<M: Message>(message: &M) -> Self {
        let (body, mistake) = match codec::encode(message, M::TYPE) {
            Ok(body) => (Bytes::from(body), None),
            Err(error) => (Bytes::new(), Some(error)),
        };
        let mut draft = Self::raw(M::TYPE, codec::JSON, body);
        draft.mistake = mistake;
        draft
    }

    /// A body that is encoded already, under any type and content type.
    pub fn raw(
        kind: impl Into<Text>,
        content_type: impl Into<Text>,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut envelope = Envelope::new(kind, body);
        envelope.content_type = content_type.into();
        Self {
            envelope,
            delay: Duration::ZERO,
            expires_after: None,
            mistake: None,
        }
    }

    /// The session key, 1 to 128 bytes. A queue with sessions handles messages of one key one at a
    /// time, in the order they were published.
    #[must_use]
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.envelope.key = Some(key.into());
        self
    }

    /// The lane of the queue the message goes to; `normal` and none at all mean the normal lane. A
    /// queue without that lane refuses it as `Invalid`; published to a topic, each queue puts it
    /// into its lane of that name, or into its normal one.
    #[must_use]
    pub fn priority(mut self, lane: impl Into<Text>) -> Self {
        let lane = lane.into();
        match lane_name(&lane) {
            Ok(_) => self.envelope.priority = (&*lane != NORMAL).then_some(lane),
            Err(error) => {
                self.mistake.get_or_insert(error);
            }
        }
        self
    }

    /// Names the message over all its tries, at most 128 bytes. Without it a random one is drawn.
    /// After [`ErrorKind::Unknown`] publish again with the same id.
    #[must_use]
    pub fn id(mut self, id: impl Into<Text>) -> Self {
        self.envelope.id = id.into();
        self
    }

    /// No worker sees the message before this time has passed: up to 366 days, never early, late by
    /// at most 1 % + 250 ms.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// A message not started by then becomes a dead letter with reason `expired`. Counted from the
    /// publish, delay included.
    #[must_use]
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.expires_after = Some(time);
        self
    }

    /// Ties the message to another, at most 128 bytes.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<Text>) -> Self {
        self.envelope.correlation_id = Some(id.into());
        self
    }

    /// Adds a header. At most 64, together 32 KiB; names may not begin with `longshore-` or `x-`,
    /// which belong to Longshore and to brokers.
    #[must_use]
    pub fn header(mut self, name: impl Into<Text>, value: impl Into<Bytes>) -> Self {
        let name = name.into();
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("longshore-") || lower.starts_with("x-") {
            self.mistake.get_or_insert(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the header name \"{}\" is reserved; choose one that does not begin with longshore- or x-",
                    longshore_core::printable(&name, 64)
                ),
            ));
        }
        self.envelope.headers.push((name, value.into()));
        self
    }

    /// Where the reply shall go, and how it will be known.
    pub(crate) fn asks(mut self, correlation_id: Text, reply_to: ReplyAddress) -> Self {
        self.envelope.correlation_id = Some(correlation_id);
        self.envelope.reply_to = Some(reply_to);
        self
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.envelope.header(name).is_some()
    }

    /// What to send, once everything the user can get wrong has been looked at.
    pub(crate) fn finish(
        self,
        limits: &longshore_core::Limits,
        now: std::time::SystemTime,
    ) -> Result<(Envelope, Duration)> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        if self.delay > defaults::LONGEST_DELAY {
            return invalid("a delay may be at most 366 days".to_owned());
        }
        let mut envelope = self.envelope;
        if envelope.kind.is_empty() {
            return invalid("a message needs a type; set `Message::TYPE`".to_owned());
        }
        if let Err(defect) = limits.check(&envelope) {
            return invalid(defect.detail);
        }
        envelope.sent_at = Some(now);
        if let Some(time) = self.expires_after {
            envelope.expires_at = now.checked_add(time);
        }
        let parts = 1 + u32::from(Flaw::HalfTheDelay.on());
        Ok((envelope, self.delay / parts))
    }
}

impl<M: Message> From<&M> for Draft {
    fn from(message: &M) -> Self {
        Self::new(message)
    }
}
