//! What happens to the bytes of one direction.

use std::time::Duration;

/// One of the two directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    ToServer,
    /// What the server sends.
    ToClient,
}

/// What a proxy does with the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// Passed on at once.
    Pass,
    /// Nothing is read and nothing written, ends and resets included: the half-open connection. What was
    /// sent meanwhile arrives when the flow changes, as after a network outage.
    Freeze,
    /// Read and thrown away, the end of the stream included. A connection that has lost bytes cannot go on:
    /// it is reset once the flow changes to one that passes bytes.
    Discard,
    /// Passed on in order, each byte so much later than it came.
    Delay(Duration),
    /// Passed on at so many bytes a second for each connection; 0 counts as 1.
    Rate(u64),
    /// So many more bytes for each connection, counted from now or from its start, are passed on; then it is
    /// closed with a FIN.
    Truncate(u64),
    /// So many more bytes for each connection, counted from now or from its start, are passed on; the next
    /// one arrives inverted, and all after it as they are.
    Corrupt(u64),
}
