//! P15: closing a transport.

use std::{sync::Arc, time::Duration};

use longshore_core::{Declare, ErrorKind, Topology, Transport};
use tokio::{task::JoinSet, time::Instant};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, message, numbered, to},
    must::Must,
    stage::{GRACE, PATIENCE, Stage},
};

cases![
    p15_a_closed_transport_answers_closed,
    p15_closing_ends_in_time_with_work_in_flight,
    p15_closing_ends_the_sources_of_the_transport,
    p15_closing_from_many_tasks_at_once_is_closing_once,
    p15_other_transports_go_on_after_one_was_closed,
];

async fn p15_a_closed_transport_answers_closed(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let closed = stage.open().await;
    closed.close(Duration::from_secs(2)).await;
    let answers = closed.publish(all_to(&topology, numbered(0..2))).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let error = answer.err().must("publishing after close");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let declared = closed
        .declare(&Topology::new(stage.name()), Declare::Create)
        .await;
    assert_eq!(
        declared.err().must("declaring after close").kind(),
        ErrorKind::Closed
    );
    let subscribed = closed.subscribe(subscription(&stage, &topology)).await;
    assert_eq!(
        subscribed.err().must("subscribing after close").kind(),
        ErrorKind::Closed
    );
    let stats = closed.admin().stats(&topology.queue).await;
    assert_eq!(
        stats.err().must("figures after close").kind(),
        ErrorKind::Closed
    );
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.silent(Duration::from_millis(300)).await;
}

async fn p15_closing_ends_in_time_with_work_in_flight(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..50))).await;
    let closing = stage.open().await;
    let mut consumer = Consumer::on(&*closing, subscription(&stage, &topology)).await;
    let held = consumer.take(10).await;
    let publishing = {
        let (closing, topology) = (closing.clone(), topology.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for at in 0..50 {
                answers.extend(
                    closing
                        .publish(vec![to(&topology, message(at.to_string()))])
                        .await,
                );
            }
            answers
        })
    };
    let from = Instant::now();
    closing.close(Duration::from_secs(2)).await;
    let took = from.elapsed();
    assert!(
        took <= Duration::from_millis(2500) + GRACE,
        "closed after {took:?}"
    );
    let answers = tokio::time::timeout(PATIENCE, publishing)
        .await
        .must("publishing ends");
    let confirmed = answers
        .must("a publisher")
        .into_iter()
        .filter(Result::is_ok)
        .count();
    drop((held, consumer));
    let mut heir = Consumer::of(&stage, &topology).await;
    heir.drain(50 + confirmed).await;
}

async fn p15_closing_ends_the_sources_of_the_transport(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let closing = stage.open().await;
    let mut consumer = Consumer::on(&*closing, subscription(&stage, &topology)).await;
    consumer.silent(Duration::from_millis(100)).await;
    closing.close(Duration::from_secs(2)).await;
    match consumer
        .batch(10, PATIENCE)
        .await
        .must("the end of the source")
    {
        Ok(batch) => assert!(
            batch.is_empty(),
            "deliveries of a closed transport: {batch:?}"
        ),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
    }
}

async fn p15_closing_from_many_tasks_at_once_is_closing_once(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let closing = stage.open().await;
    let _consumer = Consumer::on(&*closing, subscription(&stage, &topology)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let closing: Arc<dyn Transport> = closing.clone();
        tasks.spawn(async move { closing.close(Duration::from_secs(2)).await });
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.must("closing");
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .must("closing from many tasks");
    closing.close(Duration::from_secs(2)).await;
}

async fn p15_other_transports_go_on_after_one_was_closed(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for round in 0..3 {
        let brief = stage.open().await;
        let batch = all_to(&topology, numbered(round * 10..round * 10 + 10));
        crate::conformance::stage::accepted(&*brief, batch).await;
        brief.close(Duration::from_secs(2)).await;
        consumer.drain(10).await;
    }
}
