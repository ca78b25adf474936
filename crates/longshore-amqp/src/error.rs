//! What lapin and the broker say, in the words of the contract.

use lapin::{
    ErrorKind as LapinKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use longshore_core::{Error, ErrorKind, printable};

/// The longest piece of a broker's text that is passed on.
const LONGEST: usize = 512;

/// An error of lapin, told as what failed and why.
///
/// lapin never learns the credentials (see [`guard`](crate::guard)), so its texts cannot hold any.
pub(crate) fn told(doing: &str, error: &lapin::Error) -> Error {
    let why = printable(&error.to_string(), LONGEST);
    Error::new(kind(error), format!("{doing}: {why}"))
}

/// What an error of lapin means for whoever wanted something of the broker.
pub(crate) fn kind(error: &lapin::Error) -> ErrorKind {
    match error.kind() {
        LapinKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ErrorKind::Denied,
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => ErrorKind::NoSuchQueue,
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => ErrorKind::TopologyDiffers,
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        },
        LapinKind::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            ErrorKind::Denied
        }
        _ => ErrorKind::Unavailable,
    }
}

/// Whether the broker closed the channel because we may not do what was asked there.
pub(crate) fn is_refused(error: &lapin::Error) -> bool {
    match error.kind() {
        LapinKind::ProtocolError(error) => {
            matches!(
                error.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
            )
        }
        _ => false,
    }
}

/// Whether another connection has the queue for itself.
pub(crate) fn is_locked(error: &lapin::Error) -> bool {
    match error.kind() {
        LapinKind::ProtocolError(error) => {
            matches!(
                error.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED)
            )
        }
        _ => false,
    }
}

/// Whether the broker has closed a channel, and the connection goes on.
pub(crate) fn is_of_a_channel(error: &lapin::Error) -> bool {
    match error.kind() {
        LapinKind::ProtocolError(error) => matches!(error.kind(), AMQPErrorKind::Soft(_)),
        _ => false,
    }
}

/// Whether every channel of the connection is taken.
pub(crate) fn is_full(error: &lapin::Error) -> bool {
    matches!(error.kind(), LapinKind::ChannelsLimitReached)
}

/// The text of a `channel.close` or `connection.close`, where that is what happened.
pub(crate) fn reply_text(error: &lapin::Error) -> Option<String> {
    match error.kind() {
        LapinKind::ProtocolError(error) => Some(printable(error.get_message().as_str(), LONGEST)),
        _ => None,
    }
}

/// The connection went away while something was under way.
pub(crate) fn lost(doing: &str) -> Error {
    Error::new(
        ErrorKind::Unknown,
        format!("{doing}: the connection was lost before the broker answered"),
    )
}

/// No answer in time.
pub(crate) fn late(doing: &str) -> Error {
    Error::new(
        ErrorKind::Unknown,
        format!("{doing}: the broker did not answer in time"),
    )
}

/// The client was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this client was closed")
}
