//! Dedup windows: an id that completed does not reach a handler again.

#![allow(clippy::unwrap_used, missing_docs)]

mod port;
mod queue_under_test;
mod two_step;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore::{ErrorKind, HandlerError, Message, Published, Topic, Worker};
use longshore_core::{Destination, Envelope, Name, Outgoing, Part};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use port::{Port, WINDOW, secs};
use queue_under_test::{Order, until};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn what_is_published_again_after_a_lost_confirm_runs_once() {
    let port = Port::new();
    let a = port.process("a");
    assert_eq!(port.publish(&a.client, 1, "m").await, Published::Accepted);
    assert_eq!(port.publish(&a.client, 1, "m").await, Published::Accepted);
    let worker = port.plain(&a).await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    // And once it is done.
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_ids_other_keys_and_messages_without_an_id_are_left_alone() {
    let port = Port::new();
    let a = port.process("a");
    for (order, id, key) in [
        (1, "m", None),
        (2, "n", None),
        (3, "m", Some("k")),
        (4, "m", Some("l")),
    ] {
        let mut publish = a.client.publish(&port.queue, &Order { id: order }).id(id);
        if let Some(key) = key {
            publish = publish.key(key);
        }
        publish.await.unwrap();
    }
    let mut plain = Envelope::new(Order::TYPE, r#"{"id":5}"#);
    plain.content_type = "application/json".into();
    let outgoing = || Outgoing {
        to: Destination::Queue(Name::new("orders").unwrap(), Part::Lane(0)),
        envelope: plain.clone(),
        delay: Duration::ZERO,
        dedup_window: Some(WINDOW),
    };
    let transport = port.broker.open();
    for answer in transport.publish(vec![outgoing(), outgoing()]).await {
        answer.unwrap();
    }
    let worker = port.plain(&a).await;
    port.quiet().await;
    let mut orders: Vec<u64> = port.effects().iter().map(|effect| effect.1).collect();
    orders.sort_unstable();
    assert_eq!(orders, [1, 2, 3, 4, 5, 5]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_window_runs_from_completion_and_ends() {
    let port = Port::new();
    let a = port.process("a");
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    let done = Instant::now();
    tokio::time::sleep_until(done + WINDOW - secs(2)).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 1, "just inside");
    // A duplicate does not make the window longer.
    tokio::time::sleep_until(done + WINDOW + Duration::from_millis(1)).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    assert_eq!(port.effects().len(), 2, "just outside");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redriven_message_runs_whatever_the_window_says() {
    let port = Port::new();
    let a = port.process("a");
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let router = port.router("a", Duration::ZERO, move |_| {
        match fails.load(Ordering::SeqCst) {
            true => Err(HandlerError::permanent("never")),
            false => Ok(()),
        }
    });
    let worker = port.worker(&a, router).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    failing.store(false, Ordering::SeqCst);
    // Dead-lettering has released the id: another one runs, and is done.
    port.publish(&a.client, 2, "m").await;
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1)]);
    let dead = a.client.dead_letters(&port.queue);
    assert_eq!(dead.redrive_all(|_| ()).await.unwrap().done, 1);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 2, 1), ("a", 1, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lanes_share_one_window() {
    let port = Port::with(|queue| queue.lanes(["high", "normal"]));
    let a = port.process("a");
    let worker = port.plain(&a).await;
    port.publish(&a.client, 1, "m").await;
    port.quiet().await;
    let publish = a.client.publish(&port.queue, &Order { id: 2 }).id("m");
    publish.priority("high").await.unwrap();
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_keep_ids_apart_by_key_and_run_each_once() {
    let port = Port::with(|queue| queue.sessions(4));
    let a = port.process("a");
    for (order, key) in [(1, "k"), (2, "l"), (3, "k"), (4, "l")] {
        let publish = a.client.publish(&port.queue, &Order { id: order }).id("m");
        publish.key(key).await.unwrap();
    }
    let router = port.router("a", secs(1), |cx| match cx.attempt() {
        1 => Err("not yet".into()),
        _ => Ok(()),
    });
    let worker = port.worker(&a, router).await;
    port.quiet().await;
    let mut effects = port.effects();
    effects.sort_unstable();
    assert_eq!(effects, [("a", 1, 2), ("a", 2, 2)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_keeps_marks_itself_answers_duplicates_at_publish_and_runs_each_once() {
    let port = Port::new();
    let client = port.atomic_client();
    assert!(client.capabilities().dedup_at_publish, "memory does");
    let router = port.router("a", Duration::ZERO, |cx| match cx.attempt() {
        1 => Err("not yet".into()),
        _ => Ok(()),
    });
    assert_eq!(port.publish(&client, 1, "m").await, Published::Accepted);
    assert_eq!(port.publish(&client, 1, "m").await, Published::Duplicate);
    let worker = Worker::new(&client, &port.queue, router)
        .start()
        .await
        .unwrap();
    port.quiet().await;
    assert_eq!(port.publish(&client, 1, "m").await, Published::Duplicate);
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 2)]);
    tokio::time::sleep(WINDOW + secs(1)).await;
    assert_eq!(port.publish(&client, 1, "m").await, Published::Accepted);
    port.quiet().await;
    assert_eq!(port.effects().len(), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_is_refused_where_the_transport_keeps_marks_itself() {
    let port = Port::new();
    let error = port.atomic_client().with_store(Arc::clone(&port.store));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn suppressed_duplicates_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let port = Port::new();
            let a = port.process("a");
            for _ in 0..4 {
                port.publish(&a.client, 1, "m").await;
            }
            let worker = port.plain(&a).await;
            port.quiet().await;
            worker.stop().await;
        });
    });
    let metrics = snapshotter.snapshot().into_vec();
    let count = |wanted: &str| {
        let of = |(key, _, _, value): &(_, _, _, DebugValue)| {
            let key: &metrics_util::CompositeKey = key;
            let labels: Vec<_> = key.key().labels().map(|l| l.value().to_owned()).collect();
            let name = format!("{} {}", key.key().name(), labels.join(" "));
            match value {
                DebugValue::Counter(count) if name == wanted => Some(*count),
                _ => None,
            }
        };
        metrics.iter().find_map(of)
    };
    assert_eq!(count("longshore.duplicates two-step orders"), Some(3));
    let complete = count("longshore.settled.messages two-step orders complete");
    assert_eq!(complete, Some(4), "they are completed like any other");
}

#[tokio::test(start_paused = true)]
async fn where_publishing_takes_the_id_a_crash_costs_no_wait_and_a_dead_letter_frees_it() {
    let port = Port::new();
    let (a, b) = (port.atomic_process("a"), port.atomic_process("b"));
    port.publish(&a.client, 1, "m").await;
    let first = port
        .worker(&a, port.router("a", secs(3600), |_| Ok(())))
        .await;
    until("it runs", || port.running.load(Ordering::SeqCst) == 1).await;
    a.dies().await;
    let died = Instant::now();
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let router = port.router("b", Duration::ZERO, move |_| {
        match fails.load(Ordering::SeqCst) {
            true => Err(HandlerError::permanent("never")),
            false => Ok(()),
        }
    });
    let second = port.worker(&b, router).await;
    port.quiet().await;
    assert!(died.elapsed() < secs(1), "{:?}", died.elapsed());
    failing.store(false, Ordering::SeqCst);
    assert_eq!(port.publish(&b.client, 2, "m").await, Published::Accepted);
    port.quiet().await;
    assert_eq!(port.effects(), [("b", 2, 1)]);
    let dead = b.client.dead_letters(&port.queue);
    assert_eq!(dead.redrive_all(|_| ()).await.unwrap().done, 1);
    port.quiet().await;
    assert_eq!(port.effects()[1..], [("b", 1, 1)]);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_through_a_topic_takes_its_id_when_it_is_consumed() {
    let topic = Topic::new("order.placed");
    let port = Port::with(|queue| queue.subscribe_to(&topic));
    let a = port.atomic_process("a");
    let worker = port.plain(&a).await;
    let publish = || a.client.publish(&topic, &Order { id: 1 }).id("m");
    for _ in 0..3 {
        assert_eq!(publish().await.unwrap(), Published::Accepted);
    }
    port.quiet().await;
    assert_eq!(port.effects(), [("a", 1, 1)]);
    let directly = port.publish(&a.client, 1, "m").await;
    assert_eq!(directly, Published::Duplicate, "one window for both");
    worker.stop().await;
}
