//! Spans and metrics: the names and labels of the table, and nothing a message could choose.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore::{Backoff, Context, Draft, HandlerError, Router, telemetry::names};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use queue_under_test::{Log, Order, QueueUnderTest};
use tracing::{Subscriber, field::Visit, span};
use tracing_subscriber::{Layer, layer::SubscriberExt, registry::LookupSpan};

/// What a publisher writes wherever it can; it must be no label and no metric.
const CANARY: &str = "canary";
/// What is in every body and in a header.
const SECRET: &str = "hunter2";

/// One of everything that can happen to a message.
async fn everything() {
    let under_test = QueueUnderTest::new();
    let order = |id| {
        let body = format!(r#"{{"id":{id},"note":"{SECRET}"}}"#);
        let draft = Draft::raw("order.placed", "", body).header("authorization", SECRET);
        draft.header("traceparent", "00-canary-01")
    };
    let mut drafts: Vec<Draft> = (0..8)
        .map(|id| order(id).id(format!("{CANARY}{id}")))
        .collect();
    drafts.push(Draft::raw("canary.type", "", "{}").key(CANARY));
    drafts.push(order(9).expires_after(Duration::ZERO));
    let answers = under_test
        .client
        .publish_all(&under_test.queue, drafts)
        .await;
    assert!(answers.iter().all(Result::is_ok));
    let nowhere = longshore::Topic::new("nobody-listens");
    let refused = under_test.client.publish(&nowhere, &Order { id: 1 }).await;
    assert!(refused.is_err());
    let seen = Log::new();
    let log = seen.clone();
    let router = Router::new().handle_fn(move |order: Order, cx: Context| {
        let log = log.clone();
        async move {
            log.add(order.id);
            match (order.id, cx.attempt()) {
                (1, 1) => Err(HandlerError::from("once")),
                (2, _) => panic!("always"),
                (3, _) => std::future::pending().await,
                (4, 1) => {
                    cx.cancellation().cancelled().await;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    });
    let worker = under_test
        .worker(router)
        .max_attempts(3)
        .time_limit(Duration::from_secs(1))
        .backoff(Backoff::new(
            Duration::from_millis(5),
            Duration::from_millis(5),
        ))
        .start()
        .await
        .unwrap();
    seen.reaches(8).await;
    under_test.broker.lose_locks();
    under_test.settled().await;
    worker.stop().await;
}

/// One at a time: a span first seen on a thread without a subscriber while another thread installs
/// one can be taken for one that nobody wants.
static ALONE: Mutex<()> = Mutex::new(());

fn on_a_paused_clock(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work);
}

#[test]
fn metrics_have_the_names_labels_and_kinds_of_the_table() {
    let _alone = ALONE.lock();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || on_a_paused_clock(everything()));
    let mut found: BTreeMap<String, (&str, BTreeSet<String>)> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        let labels: Vec<String> = key
            .key()
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let labels = labels.join(" ");
        assert!(
            !labels.contains(CANARY) && !labels.contains("placed"),
            "{labels}"
        );
        let (kind, number) = match value {
            DebugValue::Counter(count) => ("counter", count),
            DebugValue::Gauge(level) => ("gauge", level.0 as u64),
            DebugValue::Histogram(samples) => ("histogram", samples.len() as u64),
        };
        counts.insert(format!("{name} {labels}"), number);
        found
            .entry(name)
            .or_insert((kind, BTreeSet::new()))
            .1
            .insert(labels);
    }
    let own = "system=memory queue=orders";
    let with = |label: &str, values: &[&str]| -> BTreeSet<String> {
        values
            .iter()
            .map(|value| format!("{own} {label}={value}"))
            .collect()
    };
    let client = |label: &str, values: &[&str]| -> BTreeSet<String> {
        values
            .iter()
            .map(|value| format!("system=memory {label}={value}"))
            .collect()
    };
    let alone = || BTreeSet::from([own.to_owned()]);
    let table = BTreeMap::from([
        (names::SENT, ("counter", client("result", &["ok", "error"]))),
        (
            names::OPERATION_DURATION,
            ("histogram", client("operation", &["send", "settle"])),
        ),
        (names::CONSUMED, ("counter", alone())),
        (names::PROCESS_DURATION, ("histogram", alone())),
        (
            names::SETTLED,
            (
                "counter",
                with("outcome", &["complete", "retry", "dead-letter", "release"]),
            ),
        ),
        (
            names::SETTLE_ERRORS,
            ("counter", with("kind", &["stale", "other"])),
        ),
        (names::LOCKS_LOST, ("counter", alone())),
        (names::DUPLICATES, ("counter", alone())),
        (
            names::REPLIES_DROPPED,
            ("counter", BTreeSet::from(["system=memory".to_owned()])),
        ),
        (
            names::FAILURES,
            ("counter", with("kind", &["error", "panic", "time-limit"])),
        ),
        (names::RUNNING, ("gauge", alone())),
        (names::DUPLICATES, ("counter", alone())),
        (
            names::REPLIES_DROPPED,
            ("counter", BTreeSet::from(["system=memory".to_owned()])),
        ),
    ]);
    let found: BTreeMap<&str, _> = found
        .iter()
        .map(|(name, of)| (&name[..], of.clone()))
        .collect();
    assert_eq!(found, table);

    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    assert_eq!(
        count("messaging.client.sent.messages system=memory result=ok"),
        10
    );
    assert_eq!(
        count("messaging.client.sent.messages system=memory result=error"),
        1
    );
    let of_queue = |name: &str, label: &str| count(format!("{name} {own} {label}").trim_end());
    assert_eq!(of_queue(names::RUNNING, ""), 0, "all have ended");
    assert_eq!(of_queue(names::FAILURES, "kind=error"), 1);
    assert_eq!(of_queue(names::FAILURES, "kind=panic"), 3);
    assert!(of_queue(names::FAILURES, "kind=time-limit") >= 2);
    assert_eq!(of_queue(names::SETTLED, "outcome=dead-letter"), 4);
    assert_eq!(of_queue(names::SETTLED, "outcome=complete"), 6);
    assert_eq!(of_queue(names::LOCKS_LOST, ""), 2, "those of 3 and 4");
    assert_eq!(of_queue(names::SETTLE_ERRORS, "kind=stale"), 2);
    let starts = count(&format!("{} {own}", names::PROCESS_DURATION));
    // Eight first ones, and again: one failed, two panicked, two took too long, one lost its lock.
    assert!((14..=15).contains(&starts), "{starts}");
}

/// Every span with its fields, and the text of every event.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Told>>>);

type Told = (&'static str, BTreeMap<String, String>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        cx: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        cx.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(
        &self,
        id: &span::Id,
        values: &span::Record<'_>,
        cx: tracing_subscriber::layer::Context<'_, S>,
    ) {
        if let Some(fields) = cx.span(id).unwrap().extensions_mut().get_mut() {
            values.record(&mut Fields(fields));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push(("event", fields));
    }

    fn on_close(&self, id: span::Id, cx: tracing_subscriber::layer::Context<'_, S>) {
        let span = cx.span(&id).unwrap();
        let fields = span.extensions_mut().remove().unwrap_or_default();
        self.0.lock().unwrap().push((span.name(), fields));
    }
}

#[test]
fn spans_have_the_names_and_fields_of_the_table_and_show_no_bodies() {
    let _alone = ALONE.lock();
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    tracing::subscriber::with_default(subscriber, || on_a_paused_clock(everything()));
    let all = spans.0.lock().unwrap().clone();
    let of = |name| {
        all.iter()
            .filter(move |(of, _)| *of == name)
            .map(|(_, fields)| fields)
    };
    let keys = |fields: &BTreeMap<String, String>| fields.keys().cloned().collect::<Vec<_>>();

    let batch = of("send")
        .find(|f| f.contains_key("messaging.batch.message_count"))
        .unwrap();
    let common = [
        "messaging.destination.name",
        "messaging.operation.type",
        "messaging.system",
    ];
    for fields in of("send").chain(of("process")) {
        assert!(
            common.iter().all(|name| fields.contains_key(*name)),
            "{fields:?}"
        );
        assert_eq!(fields["messaging.system"], "\"memory\"");
    }
    assert_eq!(batch["messaging.batch.message_count"], "10");
    assert_eq!(batch["otel.kind"], "\"producer\"");
    assert_eq!(batch["messaging.destination.name"], "\"orders\"");

    let processed: Vec<_> = of("process").collect();
    assert!(processed.len() >= 14, "{}", processed.len());
    let once = processed
        .iter()
        .filter(|f| f["messaging.message.id"] == "\"canary1\"");
    let attempts: Vec<_> = once.map(|f| f["longshore.attempt"].clone()).collect();
    assert_eq!(attempts, ["1", "2"]);
    assert_eq!(
        keys(processed[0]),
        [
            "longshore.attempt",
            "messaging.destination.name",
            "messaging.message.body.size",
            "messaging.message.id",
            "messaging.message.type",
            "messaging.operation.type",
            "messaging.system",
            "otel.kind",
            "traceparent",
        ]
    );
    for (_, fields) in &all {
        let shown = format!("{fields:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
