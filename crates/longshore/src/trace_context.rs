//! The trace context of OpenTelemetry, in message headers (feature `opentelemetry`).
//!
//! Header names and values are the global propagator's: with
//! `opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new())` they are the
//! `traceparent` and `tracestate` of W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use bytes::Bytes;
use longshore_core::{Envelope, Outgoing, Text};
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the context of the `send` span into every message, in place of one that was passed on.
pub(crate) fn inject(span: &Span, batch: &mut [Outgoing]) {
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    let mut headers = Headers(Vec::new());
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut headers));
    for out in batch {
        let kept = &mut out.envelope.headers;
        kept.retain(|(name, _)| headers.0.iter().all(|(new, _)| new != name));
        kept.extend_from_slice(&headers.0);
    }
}

/// Makes the publisher's context the parent of the `process` span.
pub(crate) fn extract(span: &Span, envelope: &Envelope) {
    if span.is_disabled() {
        return;
    }
    let parent =
        global::get_text_map_propagator(|propagator| propagator.extract(&Carried(envelope)));
    // Refused only where no OpenTelemetry layer is installed.
    let _ = span.set_parent(parent);
}

struct Headers(Vec<(Text, Bytes)>);

impl Injector for Headers {
    fn set(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.0.push((Text::from(name), Bytes::from(value)));
        }
    }
}

struct Carried<'a>(&'a Envelope);

impl Extractor for Carried<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.headers.iter().map(|(name, _)| &**name).collect()
    }
}
