//! What can go wrong with a broker process, with a text that says what to do.

use std::io;

/// Why a broker could not be found, started or commanded.
///
/// The text names the command and, where there is one, ends with the tail of the broker's log.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    kind: ErrorKind,
    text: String,
    #[source]
    source: Option<io::Error>,
}

/// The kinds of [`Error`] a test may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server's binary is not on this machine.
    NotInstalled,
    /// An environment variable or an option is missing or contradictory.
    NotConfigured,
    /// The process ended while it was expected to run.
    Exited,
    /// The process runs, but did not reach the awaited state in time.
    NotReady,
    /// An administration command was refused, or asked of a broker of the other kind.
    Command,
    /// The operating system refused a file, a socket or a process.
    Io,
}

impl Error {
    /// The kind, for tests that assert on it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(crate) fn io(doing: impl AsRef<str>, source: io::Error) -> Self {
        let text = format!("cannot {}: {source}", doing.as_ref());
        Self {
            kind: ErrorKind::Io,
            text,
            source: Some(source),
        }
    }
}
