//! The one error of transports and clients: what kind it is, and what the broker said.

use std::fmt;

/// What went wrong, coarse enough to decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The message or option breaks a limit or a rule; nothing was sent. Repeating will not help.
    Invalid,
    /// The broker said no, for certain: nothing was stored.
    Rejected,
    /// No such queue or topic, or a topic no queue is bound to: nothing was stored.
    NoSuchQueue,
    /// The connection was lost or the answer did not come in time: it may have happened or not.
    /// Publish again with the same id inside a dedup window.
    Unknown,
    /// The lock or the fencing token was lost. Nothing was touched.
    Stale,
    /// The broker has no room (memory, disk, length limit): nothing was stored. Try later.
    Full,
    /// The queue exists with other arguments; the text says what differs.
    TopologyDiffers,
    /// This transport cannot keep that promise; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// The broker cannot be reached, or is starting; nothing was sent. Try later.
    Unavailable,
    /// Credentials, certificate or permissions were refused.
    Denied,
    /// The client was closed.
    Closed,
}

/// What a transport or client answers when it could not do as asked.
///
/// The text is lower case, says what to do, and holds neither bodies nor credentials.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: Box<str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind with what to tell the reader.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into().into_boxed_str(),
            source: None,
        }
    }

    /// The same error with the cause below it. The cause must hold no credentials and no body.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same kind and text once more, without the cause: one failure can be the answer to many.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.kind, &*self.text)
    }

    /// Whether the same call may succeed later without anything being changed by hand.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unknown | ErrorKind::Full | ErrorKind::Unavailable
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
