//! Every span, event and metric name, in one place.
//!
//! Spans and their fields follow the OpenTelemetry semantic conventions for messaging
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/>); metrics go through the `metrics` facade.
//! Labels come from configuration alone, never from a message. With the feature `opentelemetry` the trace
//! context travels in the headers `traceparent` and `tracestate`; without it, what a message came with is
//! passed on to what its handler publishes.
//!
//! | span | when | fields |
//! |---|---|---|
//! | `send` | one publish call | `messaging.system`, `messaging.operation.type` = `send`, `messaging.destination.name`, `messaging.batch.message_count` or `messaging.message.id`, `otel.kind` = `producer` |
//! | `process` | one start of a handler | `messaging.system`, `messaging.operation.type` = `process`, `messaging.destination.name`, `messaging.message.id`, `messaging.message.type`, `messaging.message.body.size`, `longshore.attempt`, `traceparent`, `otel.kind` = `consumer` |
//!
//! | metric | kind | unit | labels |
//! |---|---|---|---|
//! | `messaging.client.sent.messages` | counter | messages | `system`, `result` = `ok` or `error` |
//! | `messaging.client.operation.duration` | histogram | s | `system`, `operation` = `send` or `settle` |
//! | `messaging.client.consumed.messages` | counter | messages | `system`, `queue` |
//! | `messaging.process.duration` | histogram | s | `system`, `queue` |
//! | `longshore.settled.messages` | counter | messages | `system`, `queue`, `outcome` = `complete`, `retry`, `dead-letter` or `release` |
//! | `longshore.settle.errors` | counter | settlements | `system`, `queue`, `kind` = `stale` or `other` |
//! | `longshore.locks.lost` | counter | locks | `system`, `queue` |
//! | `longshore.duplicates` | counter | messages completed without a start inside the dedup window | `system`, `queue` |
//! | `longshore.handler.failures` | counter | starts | `system`, `queue`, `kind` = `error`, `panic` or `time-limit` |
//! | `longshore.handlers.running` | gauge | handlers | `system`, `queue` |
//! | `longshore.replies.dropped` | counter | replies | `system` |

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use longshore_core::{Delivery, Destination, Outgoing, Published, Result, Verdict, printable};
use metrics::{Counter, Gauge, Histogram};
use tracing::Span;

/// Names of the metrics, as in the table above.
pub mod names {
    /// Messages sent.
    pub const SENT: &str = "messaging.client.sent.messages";
    /// How long a call to the broker took.
    pub const OPERATION_DURATION: &str = "messaging.client.operation.duration";
    /// Messages taken by a worker.
    pub const CONSUMED: &str = "messaging.client.consumed.messages";
    /// How long one start of a handler took.
    pub const PROCESS_DURATION: &str = "messaging.process.duration";
    /// Messages settled.
    pub const SETTLED: &str = "longshore.settled.messages";
    /// Settlements refused.
    pub const SETTLE_ERRORS: &str = "longshore.settle.errors";
    /// Locks lost while the message was with a worker.
    pub const LOCKS_LOST: &str = "longshore.locks.lost";
    /// Messages completed without a start: a copy was completed inside the dedup window.
    pub const DUPLICATES: &str = "longshore.duplicates";
    /// Starts that did not succeed.
    pub const FAILURES: &str = "longshore.handler.failures";
    /// Handlers running now.
    pub const RUNNING: &str = "longshore.handlers.running";
    /// Replies nobody waits for: late, repeated or forged.
    pub const REPLIES_DROPPED: &str = "longshore.replies.dropped";
}

/// What a client counts. Handles are made once.
pub(crate) struct Sent {
    ok: Counter,
    error: Counter,
    duration: Histogram,
}

impl Sent {
    pub(crate) fn new(system: &'static str) -> Self {
        Self {
            ok: metrics::counter!(names::SENT, "system" => system, "result" => "ok"),
            error: metrics::counter!(names::SENT, "system" => system, "result" => "error"),
            duration: metrics::histogram!(names::OPERATION_DURATION, "system" => system, "operation" => "send"),
        }
    }

    pub(crate) fn count(&self, answers: &[Result<Published>], took: Duration) {
        let ok = answers.iter().filter(|answer| answer.is_ok()).count();
        self.ok.increment(ok as u64);
        self.error.increment((answers.len() - ok) as u64);
        self.duration.record(took);
    }
}

/// Replies that nobody waits for.
pub(crate) fn dropped_replies(system: &'static str) -> Counter {
    metrics::counter!(names::REPLIES_DROPPED, "system" => system)
}

/// A counter that can be read.
pub(crate) struct Count {
    metric: Counter,
    total: AtomicU64,
}

impl Count {
    fn new(metric: Counter) -> Self {
        let total = AtomicU64::new(0);
        Self { metric, total }
    }

    pub(crate) fn increment(&self, by: u64) {
        self.metric.increment(by);
        self.total.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// A gauge that can be read.
pub(crate) struct Level {
    metric: Gauge,
    level: AtomicI64,
}

impl Level {
    pub(crate) fn add(&self, more: i32) {
        self.metric.increment(f64::from(more));
        self.level.fetch_add(more.into(), Ordering::Relaxed);
    }

    pub(crate) fn level(&self) -> u64 {
        u64::try_from(self.level.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// What a worker counts. Handles are made once.
pub(crate) struct Work {
    pub(crate) system: &'static str,
    pub(crate) queue: String,
    pub(crate) consumed: Counter,
    pub(crate) process: Histogram,
    pub(crate) settle: Histogram,
    pub(crate) locks_lost: Count,
    pub(crate) duplicates: Count,
    pub(crate) errors: Counter,
    pub(crate) panics: Counter,
    pub(crate) time_limits: Counter,
    pub(crate) stale: Count,
    pub(crate) unsettled: Counter,
    pub(crate) running: Level,
    /// Has no metric of its own: the durations are counted.
    pub(crate) started: Count,
    pub(crate) completed: Count,
    pub(crate) retried: Count,
    pub(crate) dead_lettered: Count,
    pub(crate) released: Count,
}

impl Work {
    pub(crate) fn new(system: &'static str, queue: &str) -> Self {
        let labels = |extra: Option<(&'static str, &'static str)>| {
            let mut labels = vec![
                metrics::Label::new("system", system),
                metrics::Label::new("queue", queue.to_owned()),
            ];
            labels.extend(extra.map(|(name, value)| metrics::Label::new(name, value)));
            labels
        };
        let settled = |outcome| {
            Count::new(metrics::counter!(
                names::SETTLED,
                labels(Some(("outcome", outcome)))
            ))
        };
        let failed = |kind| metrics::counter!(names::FAILURES, labels(Some(("kind", kind))));
        let refused = |kind| metrics::counter!(names::SETTLE_ERRORS, labels(Some(("kind", kind))));
        Self {
            system,
            queue: queue.to_owned(),
            consumed: metrics::counter!(names::CONSUMED, labels(None)),
            process: metrics::histogram!(names::PROCESS_DURATION, labels(None)),
            settle: metrics::histogram!(names::OPERATION_DURATION, "system" => system, "operation" => "settle"),
            locks_lost: Count::new(metrics::counter!(names::LOCKS_LOST, labels(None))),
            duplicates: Count::new(metrics::counter!(names::DUPLICATES, labels(None))),
            errors: failed("error"),
            panics: failed("panic"),
            time_limits: failed("time-limit"),
            stale: Count::new(refused("stale")),
            unsettled: refused("other"),
            running: Level {
                metric: metrics::gauge!(names::RUNNING, labels(None)),
                level: AtomicI64::new(0),
            },
            started: Count::new(Counter::noop()),
            completed: settled("complete"),
            retried: settled("retry"),
            dead_lettered: settled("dead-letter"),
            released: settled("release"),
        }
    }

    pub(crate) fn settled(&self, verdict: &Verdict) -> &Count {
        match verdict {
            Verdict::Complete => &self.completed,
            Verdict::DeadLetter { .. } => &self.dead_lettered,
            Verdict::Release { .. } => &self.released,
            _ => &self.retried,
        }
    }

    /// The span of one start of a handler. The publisher's trace context is its `traceparent` field.
    pub(crate) fn process_span(&self, delivery: &Delivery) -> Span {
        let envelope = &delivery.envelope;
        let span = tracing::info_span!(
            "process",
            otel.kind = "consumer",
            messaging.system = self.system,
            messaging.operation.r#type = "process",
            messaging.destination.name = %self.queue,
            messaging.message.id = tracing::field::Empty,
            messaging.message.r#type = tracing::field::Empty,
            messaging.message.body.size = envelope.body.len(),
            longshore.attempt = delivery.attempt,
            traceparent = tracing::field::Empty,
        );
        if !span.is_disabled() {
            #[cfg(feature = "opentelemetry")]
            crate::trace_context::extract(&span, envelope);
            span.record("messaging.message.id", printable(&envelope.id, 128));
            span.record("messaging.message.type", printable(&envelope.kind, 128));
            if let Some(parent) = envelope.header("traceparent") {
                span.record("traceparent", printable(parent, 64));
            }
        }
        span
    }
}

/// The span of one publish call. With the feature `opentelemetry` its context goes into the headers.
pub(crate) fn publish_span(system: &'static str, batch: &mut [Outgoing]) -> Span {
    let span = tracing::info_span!(
        "send",
        otel.kind = "producer",
        messaging.system = system,
        messaging.operation.r#type = "send",
        messaging.destination.name = tracing::field::Empty,
        messaging.batch.message_count = tracing::field::Empty,
        messaging.message.id = tracing::field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(first) = batch.first() {
        let destination = match &first.to {
            Destination::Queue(name, _) | Destination::Topic(name) => name.as_str(),
            _ => "(reply)",
        };
        span.record("messaging.destination.name", destination);
        match batch.len() {
            1 => span.record("messaging.message.id", printable(&first.envelope.id, 128)),
            n => span.record("messaging.batch.message_count", n),
        };
    }
    #[cfg(feature = "opentelemetry")]
    crate::trace_context::inject(&span, batch);
    span
}
