//! What has to succeed for a case to go on.

use std::fmt;

use longshore_core::{Error, Unsettled};

/// Ends the case, at the caller's line, where something that has to succeed did not.
pub(crate) trait Must {
    /// What it holds when it succeeded.
    type Held;

    /// What it holds, or the end of the case.
    fn must(self, what: impl fmt::Display) -> Self::Held;
}

impl<T, E: Explain> Must for Result<T, E> {
    type Held = T;

    #[track_caller]
    fn must(self, what: impl fmt::Display) -> T {
        match self {
            Ok(held) => held,
            Err(error) => panic!("{what}: {}", error.explain()),
        }
    }
}

impl<T> Must for Option<T> {
    type Held = T;

    #[track_caller]
    fn must(self, what: impl fmt::Display) -> T {
        match self {
            Some(held) => held,
            None => panic!("{what}: there is none"),
        }
    }
}

/// An error as a failed case shows it.
pub(crate) trait Explain {
    /// Kind and text.
    fn explain(&self) -> String;
}

impl Explain for Error {
    fn explain(&self) -> String {
        format!("{:?}: {self}", self.kind())
    }
}

impl Explain for Unsettled {
    fn explain(&self) -> String {
        self.error.explain()
    }
}

impl Explain for std::io::Error {
    fn explain(&self) -> String {
        self.to_string()
    }
}

impl Explain for tokio::task::JoinError {
    fn explain(&self) -> String {
        self.to_string()
    }
}

impl Explain for tokio::time::error::Elapsed {
    fn explain(&self) -> String {
        "not within its time".to_owned()
    }
}

impl Explain for Box<dyn std::error::Error + Send + Sync> {
    fn explain(&self) -> String {
        self.to_string()
    }
}
