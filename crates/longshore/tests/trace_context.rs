//! One trace from the publisher through the broker to the handler and on.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore::{Context, HandlerError, Message, Queue, Router, Worker};
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData},
};
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Serialize, Deserialize)]
struct Step(u32);

impl Message for Step {
    const TYPE: &'static str = "step";
}

#[tokio::test]
async fn one_trace_runs_from_the_publisher_through_two_handlers() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let client = longshore::connect("memory:").await.unwrap();
    let steps = Queue::new("steps");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, onward) = (Arc::clone(&seen), steps.clone());
    let router = Router::new().handle_fn(move |step: Step, cx: Context| {
        let (noted, onward) = (Arc::clone(&noted), onward.clone());
        async move {
            let parent = cx.header("traceparent").unwrap_or_default().to_owned();
            noted.lock().unwrap().push(parent);
            if step.0 == 1 {
                cx.publish(&onward, &Step(2)).await?;
            }
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &steps, router).start().await.unwrap();
    let root = tracing::info_span!("root");
    async { client.publish(&steps, &Step(1)).await.unwrap() }
        .instrument(root)
        .await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while seen.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    worker.stop().await;

    let spans = exporter.get_finished_spans().unwrap();
    let named =
        |name: &str| -> Vec<&SpanData> { spans.iter().filter(|s| s.name == name).collect() };
    let (sends, processes) = (named("send"), named("process"));
    assert_eq!((sends.len(), processes.len()), (2, 2), "{spans:#?}");
    let trace = sends[0].span_context.trace_id();
    assert!(
        spans
            .iter()
            .all(|span| span.span_context.trace_id() == trace),
        "{spans:#?}"
    );
    let parents = seen.lock().unwrap().clone();
    for (parent, (send, process)) in parents.iter().zip(sends.iter().zip(&processes)) {
        let expected = format!("00-{trace}-{}-01", send.span_context.span_id());
        assert_eq!(
            *parent, expected,
            "the header is the context of the send span"
        );
        assert_eq!(process.parent_span_id, send.span_context.span_id());
    }
}
