//! What must hold for every envelope, whichever broker it came from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use longshore_core::{Defect, Envelope, Limits, Reason, Text};

/// What a handler may see keeps the limits, and no header of it is ours or the broker's.
pub(super) fn assert_kept(envelope: &Envelope, limits: &Limits) {
    assert_eq!(limits.check(envelope), Ok(()));
    assert_no_steering(envelope);
}

/// No header that the framework or a broker acts on is shown.
pub(super) fn assert_no_steering(envelope: &Envelope) {
    for (name, _) in &envelope.headers {
        let ours = name.starts_with("longshore-");
        let brokers = [
            "x-death",
            "x-delivery-count",
            "x-acquired-count",
            "CC",
            "BCC",
        ];
        assert!(!ours && !brokers.contains(&&**name), "{name:?}");
    }
}

/// A defect is told in one line, in words of ours.
pub(super) fn assert_told(defect: &Defect) {
    assert!(
        matches!(defect.reason, Reason::Hostile | Reason::TooLarge),
        "{defect:?}"
    );
    let longest = defect.detail.len() <= 256;
    let shown = !defect.detail.chars().any(char::is_control);
    assert!(longest && shown, "{defect:?}");
}

/// Everything a handler sees, to be compared.
pub(super) type Seen = (
    [Text; 3],
    [Option<Text>; 3],
    Option<String>,
    [Option<u64>; 2],
    Vec<(Text, Bytes)>,
    Bytes,
);

pub(super) fn seen(envelope: &Envelope) -> Seen {
    let Envelope {
        id,
        kind,
        content_type,
        key,
        priority,
        correlation_id,
        ..
    } = envelope.clone();
    let content_type = match &*content_type {
        "" => "application/json".into(),
        _ => content_type,
    };
    let reply_to = envelope.reply_to.as_ref();
    (
        [id, kind, content_type],
        [key, priority, correlation_id],
        reply_to.map(|address| address.as_str().to_owned()),
        [envelope.sent_at, envelope.expires_at].map(|at| at.map(millis)),
        envelope.headers.clone(),
        envelope.body.clone(),
    )
}

/// As many as a signed number holds: no header can hold more.
fn millis(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis())
        .unwrap_or(u64::MAX)
        .min(i64::MAX as u64)
}
