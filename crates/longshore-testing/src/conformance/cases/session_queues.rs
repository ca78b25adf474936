//! P11: what a queue with sessions is made of: partitions, the plain queue and its topics.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Destination, ErrorKind, Name, Part, Reason, Topology, Verdict,
};
use tokio::time::Instant;

use super::dead_letters::letters;
use crate::conformance::{
    case::cases,
    consumer::Consumer,
    member::{Member, Owner},
    message::{all_to_partition, keys_in, message, number, partition, to, to_session, to_topic},
    must::Must,
    stage::{Stage, accepted},
};

cases![
    p11_a_topic_message_reaches_the_partition_of_its_key needs Partitions & Topics,
    p11_the_plain_queue_of_sessions_is_consumed_by_its_forwarder needs Partitions,
    p11_another_number_of_partitions_is_refused_while_messages_wait needs Partitions,
    p11_a_queue_can_have_256_partitions needs Partitions,
    p11_a_partition_that_is_not_there_is_no_such_queue needs Partitions,
    p11_figures_sum_up_over_the_partitions needs Partitions,
];

async fn p11_a_topic_message_reaches_the_partition_of_its_key(stage: Arc<Stage>) {
    let topic = stage.name();
    let mut queues = Vec::new();
    for partitions in [4, 8] {
        let mut topology = Topology::new(stage.name());
        topology.partitions = partitions;
        topology.topics.push(topic.clone());
        stage.declare(&topology).await;
        queues.push(topology);
    }
    let plain = stage.bound_to(&[&topic]).await;
    let keys: Vec<_> = keys_in(&queues[1], 6).take(10).collect();
    let batch = keys.iter().enumerate().map(|(number, key)| {
        let mut envelope = message(number.to_string());
        envelope.key = Some(key.clone());
        to_topic(&topic, envelope)
    });
    stage.publish(batch.collect()).await;
    stage.publish(vec![to_topic(&topic, message("99"))]).await;
    for (topology, index) in queues.iter().zip([2, 6]) {
        let mut owner = Owner::of(&stage, topology, index).await;
        let came = owner.consumer.drain(10).await;
        let numbers = came.iter().map(|d| number(&d.envelope));
        assert!(numbers.eq(0..10), "in publish order, in partition {index}");
        owner.consumer.silent(Duration::from_millis(200)).await;
        // Without a key only the plain queue is left.
        let member = Member::of(&stage, topology).await;
        let mut forwarder = Owner::by(&stage, member, Claim::Forwarder).await;
        let keyless = forwarder.consumer.next().await;
        assert_eq!(number(&keyless.envelope), 99);
        forwarder.consumer.complete(keyless).await;
        forwarder.consumer.silent(Duration::from_millis(200)).await;
    }
    let mut plain = Consumer::of(&stage, &plain).await;
    plain.drain(11).await;
}

async fn p11_the_plain_queue_of_sessions_is_consumed_by_its_forwarder(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let keys: Vec<_> = keys_in(&topology, 1).take(2).collect();
    // As a plain client does, which knows nothing of partitions.
    for at in 0..40 {
        let mut envelope = message(at.to_string());
        envelope.key = keys.get(at % 3).cloned();
        stage.publish(vec![to(&topology, envelope)]).await;
    }
    let member = Member::of(&stage, &topology).await;
    let mut forwarder = Owner::by(&stage, member, Claim::Forwarder).await;
    for wanted in 0..40 {
        let delivery = forwarder.consumer.next().await;
        assert_eq!(number(&delivery.envelope), wanted);
        assert_eq!(delivery.part, Part::Lane(0));
        match delivery.envelope.key.clone() {
            Some(key) => {
                let copy = to_session(&topology, &key, delivery.envelope.clone());
                accepted(&*forwarder.member.transport, vec![copy]).await;
                forwarder.consumer.complete(delivery).await;
            }
            None => {
                let verdict = Verdict::DeadLetter {
                    reason: Reason::KeyMissing,
                    detail: String::new(),
                };
                let settled = forwarder.consumer.settle(delivery, verdict).await;
                settled.must("dead-lettering");
            }
        }
    }
    forwarder.consumer.silent(Duration::from_millis(200)).await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let came = owner.consumer.drain(27).await;
    let wanted = (0..40).filter(|at| at % 3 < 2);
    assert!(came.iter().map(|d| number(&d.envelope)).eq(wanted));
    assert_eq!(letters(&stage, &topology, 13).await[0].attempts, 1);
}

async fn p11_another_number_of_partitions_is_refused_while_messages_wait(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    stage.publish(all_to_partition(&topology, 3, 0..1)).await;
    let mut more = topology.clone();
    more.partitions = 8;
    let other = stage.open().await;
    for transport in [&stage.transport, &other] {
        let error = transport.declare(&more, Declare::Create).await.err();
        let error = error.must("8 partitions where 4 hold messages");
        assert_eq!(error.kind(), ErrorKind::TopologyDiffers, "{error}");
    }
    let refused = stage.transport.declare(&more, Declare::Verify).await;
    assert!(refused.is_err(), "verified what is not there");
    stage.declare(&topology).await;
    let mut owner = Owner::of(&stage, &topology, 3).await;
    owner.consumer.drain(1).await;
    owner.hand_over(Vec::new()).await;
    let empty = Instant::now();
    while let Err(error) = stage.transport.declare(&more, Declare::Create).await {
        // What is gone may show in the broker's figures for a moment.
        assert_eq!(error.kind(), ErrorKind::TopologyDiffers, "{error}");
        assert!(empty.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stage.publish(all_to_partition(&more, 7, 0..5)).await;
    let mut owner = Owner::of(&stage, &more, 7).await;
    owner.consumer.drain(5).await;
}

async fn p11_a_queue_can_have_256_partitions(stage: Arc<Stage>) {
    let topology = stage.sessions(256).await;
    let keys: Vec<_> = [0, 1, 127, 255]
        .into_iter()
        .filter_map(|index| keys_in(&topology, index).next())
        .collect();
    let batch = keys
        .iter()
        .enumerate()
        .map(|(number, key)| to_session(&topology, key, message(number.to_string())));
    stage.publish(batch.collect()).await;
    for (at, index) in [0, 1, 127, 255].into_iter().enumerate() {
        let mut owner = Owner::of(&stage, &topology, index).await;
        let delivery = owner.consumer.next().await;
        assert_eq!(number(&delivery.envelope), at);
        assert_eq!(delivery.part, partition(&topology, index));
        owner.consumer.complete(delivery).await;
    }
    let verified = stage.transport.declare(&topology, Declare::Verify).await;
    verified.must("verifying what is there");
}

async fn p11_a_partition_that_is_not_there_is_no_such_queue(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let lanes = stage.queue().await;
    let missing = |queue: &Name, index, of| {
        let mut outgoing = to(&topology, message("lost"));
        outgoing.envelope.key = Some("customer-1".into());
        outgoing.to = Destination::Queue(queue.clone(), Part::Partition { index, of });
        outgoing
    };
    let nowhere = stage.name();
    let batch = vec![
        missing(&nowhere, 0, 4),
        missing(&lanes.queue, 0, 4),
        missing(&topology.queue, 0, 8),
        missing(&topology.queue, 1, 2),
    ];
    let answers = stage.transport.publish(batch).await;
    assert_eq!(answers.len(), 4);
    for answer in answers {
        let error = answer.err().must("published to what is not there");
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    }
}

async fn p11_figures_sum_up_over_the_partitions(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    for index in 0..4 {
        stage
            .publish(all_to_partition(&topology, index, 0..5))
            .await;
    }
    stage.publish(vec![to(&topology, message("plain"))]).await;
    let delayed = u64::from(stage.transport.capabilities().longest_delay.is_some());
    if delayed == 1 {
        let mut later = all_to_partition(&topology, 2, 5..6);
        later[0].delay = Duration::from_secs(600);
        stage.publish(later).await;
    }
    stage
        .until_stats(&topology, "21 ready", |s| {
            s.ready == 21 && s.delayed.unwrap_or(delayed) == delayed && s.dead == 0
        })
        .await;
    let mut owner = Owner::of(&stage, &topology, 3).await;
    let held = owner.consumer.take(5).await;
    stage
        .until_stats(&topology, "16 ready, 5 in flight", |s| {
            s.ready == 16 && s.in_flight.unwrap_or(5) == 5
        })
        .await;
    owner.consumer.complete_all(held).await;
    stage
        .until_stats(&topology, "16 ready", |s| {
            s.ready == 16 && s.in_flight.unwrap_or(0) == 0
        })
        .await;
}
