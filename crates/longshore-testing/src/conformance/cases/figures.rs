//! What an operator sees.

use std::{sync::Arc, time::Duration};

use longshore_core::{ErrorKind, Reason, Topology};

use super::dead_letters::set_aside;
use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{all_to, later, message, numbered},
    must::Must,
    stage::Stage,
};

cases![
    figures_follow_a_message_through_its_queue,
    figures_of_a_missing_queue_are_no_such_queue,
    figures_count_delayed_messages_where_the_broker_can needs Delays,
];

async fn figures_follow_a_message_through_its_queue(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let nobody = |consumers: Option<u64>| consumers.unwrap_or(0) == 0;
    stage
        .until_stats(&topology, "an empty queue", |s| {
            s.ready == 0 && s.dead == 0 && nobody(s.consumers)
        })
        .await;
    stage.publish(all_to(&topology, numbered(0..10))).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let waited =
        |oldest: Duration| oldest >= Duration::from_secs(1) && oldest < Duration::from_secs(60);
    stage
        .until_stats(&topology, "ten ready", |s| {
            s.ready == 10 && s.oldest.is_none_or(waited)
        })
        .await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 4).await;
    let mut held = consumer.take(4).await;
    stage
        .until_stats(&topology, "six ready, four in flight", |s| {
            s.ready == 6 && s.in_flight.unwrap_or(4) == 4 && s.consumers.unwrap_or(1) == 1
        })
        .await;
    consumer
        .source
        .set_prefetch(1)
        .must("lowering the prefetch");
    let first = held.remove(0);
    consumer.complete_all(held).await;
    consumer.complete(first).await;
    set_aside(&mut consumer, Reason::Permanent, "").await;
    stage
        .until_stats(&topology, "one dead letter", |s| s.dead == 1)
        .await;
    consumer.drain(5).await;
    consumer.stop_empty().await;
    drop(consumer);
    stage
        .until_stats(&topology, "a drained queue", |s| {
            s.ready == 0 && s.in_flight.unwrap_or(0) == 0 && s.dead == 1 && nobody(s.consumers)
        })
        .await;
}

async fn figures_of_a_missing_queue_are_no_such_queue(stage: Arc<Stage>) {
    let missing = Topology::new(stage.name());
    let error = stage.transport.admin().stats(&missing.queue).await.err();
    let error = error.must("figures of a queue that does not exist");
    assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
}

async fn figures_count_delayed_messages_where_the_broker_can(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let batch = (0..3).map(|_| later(&topology, message("later"), Duration::from_secs(600)));
    stage.publish(batch.collect()).await;
    stage
        .until_stats(&topology, "three delayed", |s| {
            s.ready == 0 && s.delayed.unwrap_or(3) == 3
        })
        .await;
}
