//! The list of targets.

use crate::targets::{
    amqp_envelope, amqp_frames, codec, history, names, redis_envelope, redis_replies, urls,
};

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics where an input breaks a promise.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "amqp_envelope",
        run: amqp_envelope,
    },
    Target {
        name: "amqp_frames",
        run: amqp_frames,
    },
    Target {
        name: "codec",
        run: codec,
    },
    Target {
        name: "history",
        run: history,
    },
    Target {
        name: "names",
        run: names,
    },
    Target {
        name: "redis_envelope",
        run: redis_envelope,
    },
    Target {
        name: "redis_replies",
        run: redis_replies,
    },
    Target {
        name: "urls",
        run: urls,
    },
];
