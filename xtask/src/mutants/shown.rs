//! Which chaos runs show what a simulation cannot.

use longshore_core::chaos::Flaw;

use super::Chaos;

/// The chaos runs that show a flaw, the likeliest first. A simulation has no adapter of a real broker,
/// and its sources never end.
pub(super) fn shown_by(flaw: Flaw) -> &'static [Chaos] {
    match flaw {
        Flaw::NoConfirms => &[("amqp", "lose-publishes"), ("redis", "half-open-to-server")],
        Flaw::RefusalIgnored => &[("redis", "redis-full"), ("amqp", "dead-letters-full")],
        Flaw::UnfencedSettle => &[("redis", "freeze-worker")],
        Flaw::SettleUnheard => &[("amqp", "lose-settlement-replies"), ("amqp", "reset")],
        Flaw::HandOverRequeues => &[("amqp", "leave-and-join"), ("amqp", "terminate")],
        Flaw::TakeOverCounts => &[("redis", "kill-worker"), ("amqp", "leave-and-join")],
        Flaw::MultipleAcknowledge => &[("amqp", "kill-worker")],
        Flaw::ForwardUnconfirmed => &[("amqp", "lose-publishes"), ("redis", "reset")],
        Flaw::ReleaseWhileRunning => &[("redis", "leave-and-join")],
        Flaw::AcknowledgeBeforeCopy => &[("amqp", "crash-copy-sent"), ("amqp", "lose-publishes")],
        Flaw::CopiesNotMandatory => &[("amqp", "delete-queue")],
        Flaw::StreamTrimmed => &[("redis", "none"), ("redis", "freeze-worker")],
        Flaw::GroupAtEnd => &[("redis", "delete-queue")],
        Flaw::LostLockIgnored => &[("redis", "freeze-worker"), ("redis", "half-open")],
        Flaw::NoRenewal => &[("redis", "none")],
        Flaw::NoReconnect => &[("redis", "close-connections")],
        _ => &[("amqp", "mix"), ("redis", "mix")],
    }
}
