//! What a message may be at most, checked before anything looks inside it.

use crate::{Defect, Envelope, Reason, printable};

/// What a message may be at most. Checked by the client before it publishes and by every transport
/// before a handler can see a delivery; what breaks a limit becomes a dead letter at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body. Default 1 MiB, at most [`Limits::HARD_BODY`].
    pub body: usize,
    /// Number of headers. Default 64.
    pub headers: usize,
    /// Bytes of all header names and values together. Default 32 KiB.
    pub header_bytes: usize,
    /// How deep tables and arrays may nest in a header. Default 8.
    pub header_depth: usize,
    /// Bytes of an id, key, type, correlation id or header name. Default 128.
    pub name_bytes: usize,
}

impl Limits {
    /// The largest body limit that can be configured: 16 MiB, what RabbitMQ 4 accepts by default.
    pub const HARD_BODY: usize = 16 * 1024 * 1024;

    /// The first limit this envelope breaks, as the reason it can be dead-lettered with.
    ///
    /// # Errors
    /// A [`Defect`] of reason [`Reason::TooLarge`] for the body, else [`Reason::Hostile`].
    pub fn check(&self, envelope: &Envelope) -> Result<(), Defect> {
        if envelope.body.len() > self.body {
            return Err(Defect::too_large(envelope.body.len() as u64, self.body));
        }
        let hostile = |detail: String| Err(Defect::new(Reason::Hostile, detail));
        let names = [
            ("id", Some(&envelope.id)),
            ("type", Some(&envelope.kind)),
            ("content type", Some(&envelope.content_type)),
            ("key", envelope.key.as_ref()),
            ("priority", envelope.priority.as_ref()),
            ("correlation id", envelope.correlation_id.as_ref()),
        ];
        for (what, value) in names {
            let Some(value) = value else { continue };
            if value.len() > self.name_bytes {
                let (has, may) = (value.len(), self.name_bytes);
                return hostile(format!("the {what} has {has} bytes, the limit is {may}"));
            }
            if value.chars().any(char::is_control) {
                return hostile(format!("the {what} holds control characters"));
            }
        }
        if envelope.headers.len() > self.headers {
            let (has, may) = (envelope.headers.len(), self.headers);
            return hostile(format!("{has} headers, the limit is {may}"));
        }
        let mut bytes = 0;
        for (name, value) in &envelope.headers {
            bytes += name.len() + value.len();
            if name.is_empty() || name.len() > self.name_bytes || name.chars().any(char::is_control)
            {
                let name = printable(name, 64);
                return hostile(format!(
                    "the header name \"{name}\" is empty, too long or holds control characters"
                ));
            }
        }
        if bytes > self.header_bytes {
            let may = self.header_bytes;
            return hostile(format!("{bytes} bytes of headers, the limit is {may}"));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            headers: 64,
            header_bytes: 32 * 1024,
            header_depth: 8,
            name_bytes: 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Text;

    fn reason(envelope: &Envelope) -> Option<Reason> {
        Limits::default().check(envelope).err().map(|d| d.reason)
    }

    #[test]
    fn each_limit_has_its_reason_and_the_edge_itself_passes() {
        let limits = Limits::default();
        let mut envelope = Envelope::new("order.placed", vec![0; limits.body]);
        assert_eq!(reason(&envelope), None);
        envelope.body = vec![0; limits.body + 1].into();
        assert_eq!(reason(&envelope), Some(Reason::TooLarge));

        let mut envelope = Envelope::new("order.placed", "{}");
        envelope.id = "x".repeat(128).into();
        assert_eq!(reason(&envelope), None);
        envelope.id = "x".repeat(129).into();
        assert_eq!(reason(&envelope), Some(Reason::Hostile));
        envelope.id = Text::from("a\nb");
        assert_eq!(reason(&envelope), Some(Reason::Hostile));
        envelope.id = Text::new();
        assert_eq!(reason(&envelope), None);

        let header = |n: usize, v: usize| (Text::from("h".repeat(n)), Bytes::from(vec![b'v'; v]));
        envelope.headers = vec![header(1, 1); 64];
        assert_eq!(reason(&envelope), None);
        envelope.headers = vec![header(1, 1); 65];
        assert_eq!(reason(&envelope), Some(Reason::Hostile));
        envelope.headers = vec![header(24, 1000); 32];
        assert_eq!(reason(&envelope), None);
        envelope.headers = vec![header(24, 1001); 32];
        assert_eq!(reason(&envelope), Some(Reason::Hostile));
        envelope.headers = vec![header(129, 1)];
        assert_eq!(reason(&envelope), Some(Reason::Hostile));
    }
}
