//! What redis-rs and the server say, as the errors of the contract.

use longshore_core::{Error, ErrorKind, printable};
use redis::{RedisError, ServerError, Value};

use crate::address::Address;

/// Why a round trip gave no replies.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nothing was sent.
    Before(Error),
    /// The connection was lost, or no answer came in time: it may have happened or not.
    After(Error),
}

impl Broken {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Before(error) | Self::After(error) => error,
        }
    }
}

/// A connection could not be made.
pub(crate) fn unreachable(address: &Address, error: &RedisError) -> Error {
    let text = describe(address, error);
    let refused = matches!(error.kind(), redis::ErrorKind::AuthenticationFailed)
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
        || ["invalid peer certificate", "certificate"]
            .iter()
            .any(|word| text.contains(word));
    if refused {
        return Error::new(
            ErrorKind::Denied,
            format!(
                "the Redis server and this client do not accept each other; check credentials and certificates: {text}"
            ),
        );
    }
    if error.kind() == redis::ErrorKind::RESP3NotSupported {
        return Error::new(
            ErrorKind::Unsupported,
            "Redis 7.0 or Valkey 8 is needed, this server is older",
        );
    }
    Error::new(
        ErrorKind::Unavailable,
        format!("no Redis server can be reached: {text}"),
    )
}

/// A request was sent and no answer came.
pub(crate) fn unanswered(address: &Address, error: &RedisError) -> Error {
    let text = describe(address, error);
    Error::new(
        ErrorKind::Unknown,
        format!(
            "the connection was lost before Redis answered; it may have happened or not: {text}"
        ),
    )
}

/// Reading can be repeated, so no answer is no more than unavailable.
pub(crate) fn unread(broken: Broken) -> Error {
    let error = broken.into_error();
    match error.kind() {
        ErrorKind::Unknown => Error::new(ErrorKind::Unavailable, error.to_string()),
        _ => error,
    }
}

/// The server answered with an error: this command did nothing.
pub(crate) fn refused(error: &ServerError) -> Error {
    let details = error.details().unwrap_or_default();
    let kind = match error.code() {
        "OOM" => ErrorKind::Full,
        "NOPERM" | "NOAUTH" => ErrorKind::Denied,
        // Redis 7.0 has no code for what a script may not do.
        _ if details.contains("user executing the script can't") => ErrorKind::Denied,
        "EXECABORT" if details.contains("NOPERM") => ErrorKind::Denied,
        "NOGROUP" | "UNBLOCKED" => ErrorKind::NoSuchQueue,
        "WRONGTYPE" => ErrorKind::TopologyDiffers,
        _ if is_passing(error) => ErrorKind::Unavailable,
        _ => ErrorKind::Rejected,
    };
    // "unknown command" quotes arguments, which can be a body or a password.
    let told = format!("{} {details}", error.code());
    let told = told.split(", with args").next().unwrap_or_default();
    Error::new(kind, format!("redis refused: {}", printable(told, 200)))
}

/// The server cannot do it now and may be able to later; nothing happened.
pub(crate) fn is_passing(error: &ServerError) -> bool {
    matches!(
        error.code(),
        "LOADING"
            | "READONLY"
            | "CLUSTERDOWN"
            | "MASTERDOWN"
            | "MOVED"
            | "ASK"
            | "TRYAGAIN"
            | "BUSY"
            | "NOREPLICAS"
            | "MISCONF"
            | "NOSCRIPT"
    )
}

/// The queue is not there, or not as it was declared.
pub(crate) fn is_missing(error: &ServerError) -> bool {
    matches!(error.code(), "NOGROUP" | "UNBLOCKED")
        || error
            .details()
            .is_some_and(|text| text.contains("no such key"))
}

/// A reply, or the error the server sent in its place.
pub(crate) fn checked(reply: Value) -> Result<Value, Error> {
    match reply {
        Value::ServerError(error) => Err(refused(&error)),
        value => Ok(value),
    }
}

/// A reply that is not what the command promises.
pub(crate) fn unexpected() -> Error {
    Error::new(
        ErrorKind::Rejected,
        "redis gave an answer this client does not understand",
    )
}

fn describe(address: &Address, error: &RedisError) -> String {
    let mut text = error.category().to_owned();
    if let Some(detail) = error.detail() {
        let detail = detail.split(", with args").next().unwrap_or_default();
        text = format!("{text}: {detail}");
    } else {
        use std::error::Error as _;
        // Causes of input and output errors hold neither commands nor credentials.
        if let Some(cause) = error.source() {
            text = format!("{text}: {cause}");
        } else if error.is_io_error() {
            text = error.to_string();
        }
    }
    printable(&address.scrub(&text), 300)
}
