//! What the fuzz targets of this workspace reach in here. Not part of the public interface: only the
//! feature `fuzzing` builds it, and it changes without notice.

use longshore_core::{Envelope, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Fault, codec};

/// Decodes the body of an envelope.
///
/// # Errors
/// Why not, in one line.
pub fn decode<T: DeserializeOwned>(envelope: &Envelope, name: &str) -> Result<T, String> {
    codec::decode(envelope, name)
}

/// Encodes a message.
///
/// # Errors
/// The type cannot be written as JSON.
pub fn encode<T: Serialize>(value: &T, name: &str) -> Result<Vec<u8>> {
    codec::encode(value, name)
}

/// Reads the fault in an answer.
///
/// # Errors
/// Why not, in one line.
pub fn fault(body: &[u8]) -> Result<Fault, String> {
    Fault::read(body)
}
