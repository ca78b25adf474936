//! What a handler says when it did not succeed.

use std::{error::Error as StdError, fmt, time::Duration};

use longshore_core::{defaults::DETAIL_BYTES, printable};

use crate::{Fault, Message};

/// What a handler says when it did not succeed.
///
/// Every error converts with `?` and means "retry with backoff": std errors, `anyhow::Error`,
/// `String`, `&str`, boxed errors. Not an [`Error`](StdError) itself, so that this works.
///
/// The text of the error and its causes becomes the dead letter's detail, so it must hold no secret.
pub struct HandlerError {
    cause: Box<dyn StdError + Send + Sync>,
    next: Next,
    fault: Option<Box<Fault>>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Backoff,
    After(Duration),
    Never,
}

impl HandlerError {
    /// Trying again cannot help: the message becomes a dead letter now.
    pub fn permanent(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            cause: cause.into(),
            next: Next::Never,
            fault: None,
        }
    }

    /// Answers a request with a fault that whoever asked can tell by its type
    /// ([`Fault::get`]); the request is then done. A message that nobody waits for becomes a dead
    /// letter, as with [`permanent`](Self::permanent).
    ///
    /// Only the value travels, so it must hold no secret.
    pub fn fault<F: Message>(fault: &F) -> Self {
        match Fault::raised(fault) {
            Ok(fault) => Self {
                cause: fault.to_string().into(),
                next: Next::Never,
                fault: Some(Box::new(fault)),
            },
            Err(error) => Self::permanent(error),
        }
    }

    /// Try again `after` from now instead of after the queue's backoff. Uses up an attempt.
    pub fn retry_after(after: Duration, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            cause: cause.into(),
            next: Next::After(after),
            fault: None,
        }
    }

    /// Whether this error sets the message aside without further attempts.
    pub fn is_permanent(&self) -> bool {
        self.next == Next::Never
    }

    /// What went wrong.
    pub fn cause(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.cause
    }

    pub(crate) fn next(&self) -> Next {
        self.next
    }

    /// What to answer a request with.
    pub(crate) fn raised(&self) -> Option<&Fault> {
        self.fault.as_deref()
    }

    /// The error and its causes in one line, safe to show and at most as long as a detail may be.
    pub(crate) fn detail(&self) -> String {
        let mut text = self.cause.to_string();
        let mut below = self.cause.source();
        while let Some(cause) = below {
            if text.len() > DETAIL_BYTES {
                break;
            }
            text.push_str(": ");
            text.push_str(&cause.to_string());
            below = cause.source();
        }
        printable(&text, DETAIL_BYTES)
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(cause: E) -> Self {
        Self {
            cause: cause.into(),
            next: Next::Backoff,
            fault: None,
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("next", &self.next)
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_printable_line_of_bounded_length() {
        let error = HandlerError::from(format!("x\n{}", "é".repeat(1024 * 1024)));
        assert!(error.detail().len() <= DETAIL_BYTES);
        assert!(error.detail().starts_with("x\\n"));
    }

    #[test]
    fn causes_are_told_with_the_error() {
        let io = std::io::Error::other(std::fmt::Error);
        assert!(HandlerError::from(io).detail().contains("formatting"));
    }
}
