//! Replies of a server.

use longshore_redis::fuzzing;

use super::redis_envelope::assert_readable;

/// Whatever a server answers is read without a panic, however deep and however long it says it is, and
/// its errors are told in one line without what a command held.
pub fn redis_replies(octets: &[u8]) {
    for fields in fuzzing::replies(octets) {
        assert_readable(&fields);
    }
    if let Some(told) = fuzzing::refusal(octets) {
        assert!(!told.chars().any(char::is_control), "{told:?}");
        assert!(told.len() < 512, "{told:?}");
        assert!(!told.contains(", with args"), "{told:?}");
    }
}
