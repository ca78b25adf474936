//! P11: what one partition delivers, and how much of it.

use std::{sync::Arc, time::Duration};

use longshore_core::{Claim, ErrorKind, Reason, Topology, Verdict, partition_of};
use tokio::time::Instant;

use super::dead_letters::{letters, set_aside};
use crate::conformance::{
    case::cases,
    member::{Member, Owner},
    message::{all_to_partition, assert_same, keys_in, laden, number, partition, to_session},
    must::Must,
    stage::{SILENCE, Stage, TICK, accepted},
};

cases![
    p11_a_partition_delivers_in_publish_order needs Partitions,
    p11_a_partition_holds_its_window_and_no_more needs Partitions,
    p11_the_window_of_a_partition_is_its_queues needs Partitions,
    p11_the_prefetch_of_a_partition_cannot_be_changed needs Partitions,
    p11_partitions_do_not_wait_for_each_other needs Partitions,
    p11_every_field_of_a_message_passes_through_a_partition needs Partitions,
    p11_a_dead_letter_of_a_partition_returns_to_it needs Partitions,
    p11_a_delayed_message_reaches_its_partition needs Partitions & Delays,
];

async fn p11_a_partition_delivers_in_publish_order(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let index = 2;
    let other = stage.open().await;
    let mut owner = Owner::of(&stage, &topology, index).await;
    let mut came = Vec::new();
    // Before, while and after it is consumed, by two publishers in turn.
    for from in (0..600).step_by(50) {
        let batch = all_to_partition(&topology, index, from..from + 50);
        if from % 100 == 0 {
            stage.publish(batch).await;
        } else {
            accepted(&*other, batch).await;
        }
        if from >= 300 {
            came.extend(owner.consumer.drain(50).await);
        }
    }
    came.extend(owner.consumer.drain(300).await);
    for (wanted, delivery) in came.iter().enumerate() {
        assert_eq!(number(&delivery.envelope), wanted, "in publish order");
        assert!(delivery.attempt == 1 && !delivery.suspect && !delivery.alone);
        assert_eq!(delivery.part, partition(&topology, index));
    }
}

async fn p11_a_partition_holds_its_window_and_no_more(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    stage.publish(all_to_partition(&topology, 1, 0..80)).await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let mut held = owner.consumer.take(32).await;
    owner.consumer.silent(SILENCE).await;
    // In any order: a settled one makes room for exactly one.
    for at in [0, 30, 13] {
        let delivery = held.remove(at);
        owner.consumer.complete(delivery).await;
        held.push(owner.consumer.next().await);
        owner.consumer.silent(Duration::from_millis(200)).await;
    }
    let newest = held.iter().rev().take(3).map(|d| number(&d.envelope));
    assert!(newest.eq([34, 33, 32]));
}

async fn p11_the_window_of_a_partition_is_its_queues(stage: Arc<Stage>) {
    let mut topology = Topology::new(stage.name());
    topology.partitions = 2;
    topology.partition_prefetch = 3;
    stage.declare(&topology).await;
    stage.publish(all_to_partition(&topology, 0, 0..20)).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let held = owner.consumer.take(3).await;
    owner.consumer.silent(SILENCE).await;
    owner.consumer.complete_all(held).await;
    owner.consumer.drain(17).await;
}

async fn p11_the_prefetch_of_a_partition_cannot_be_changed(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let error = owner.consumer.source.set_prefetch(64).err();
    let error = error.must("changing what belongs to the queue");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    stage.publish(all_to_partition(&topology, 0, 0..40)).await;
    owner.consumer.take(32).await;
    owner.consumer.silent(SILENCE).await;
}

async fn p11_partitions_do_not_wait_for_each_other(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    for index in 0..2 {
        stage
            .publish(all_to_partition(&topology, index, 0..60))
            .await;
    }
    let member = Member::of(&stage, &topology).await;
    let first = member.own(Claim::Partition(0)).await;
    let second = member.own(Claim::Partition(1)).await;
    let mut stuck = member.consume(&stage, first).await;
    let mut flowing = member.consume(&stage, second).await;
    let held = stuck.take(32).await;
    for (wanted, delivery) in flowing.drain(60).await.iter().enumerate() {
        assert_eq!(number(&delivery.envelope), wanted);
    }
    // Nor do their endings touch each other.
    drop(flowing);
    member.release(second).await;
    stuck.complete_all(held).await;
    stuck.drain(28).await;
}

async fn p11_every_field_of_a_message_passes_through_a_partition(stage: Arc<Stage>) {
    let topology = stage.sessions(16).await;
    let sent = laden();
    let key = sent.key.clone().must("a key");
    stage
        .publish(vec![to_session(&topology, &key, sent.clone())])
        .await;
    let mut owner = Owner::of(&stage, &topology, partition_of(&key, 16)).await;
    let delivery = owner.consumer.next().await;
    assert_same(&sent, &delivery.envelope);
    let member = owner.hand_over(vec![delivery]).await;
    let claim = Claim::Partition(partition_of(&key, 16));
    let mut owner = Owner::by(&stage, member, claim).await;
    let delivery = owner.consumer.next().await;
    assert_same(&sent, &delivery.envelope);
    owner.consumer.complete(delivery).await;
}

async fn p11_a_dead_letter_of_a_partition_returns_to_it(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let mut owner = Owner::of(&stage, &topology, 3).await;
    let key = keys_in(&topology, 3).next().must("a key");
    let mut sent = laden();
    sent.key = Some(key.clone());
    stage
        .publish(vec![to_session(&topology, &key, sent.clone())])
        .await;
    stage.publish(all_to_partition(&topology, 3, 0..3)).await;
    set_aside(&mut owner.consumer, Reason::Permanent, "in a session").await;
    // The next of its session runs.
    let rest = owner.consumer.drain(3).await;
    assert!(rest.iter().map(|d| number(&d.envelope)).eq(0..3));
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_same(&sent, &letter.envelope);
    assert_eq!(
        (letter.reason.as_str(), &letter.detail[..], letter.attempts),
        ("permanent", "in a session", 1)
    );
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    let back = owner.consumer.next().await;
    assert_same(&sent, &back.envelope);
    assert_eq!((back.attempt, back.suspect), (1, false));
    assert_eq!(back.part, partition(&topology, 3));
    // And can be discarded for ever.
    let verdict = Verdict::DeadLetter {
        reason: Reason::Exhausted,
        detail: String::new(),
    };
    let settled = owner.consumer.settle(back, verdict).await;
    settled.must("dead-lettering again");
    let letter = letters(&stage, &topology, 1).await.remove(0);
    let answers = admin.discard(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("discarding"));
    letters(&stage, &topology, 0).await;
    owner.consumer.silent(SILENCE).await;
}

async fn p11_a_delayed_message_reaches_its_partition(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let delay = Duration::from_millis(600);
    let asked = Instant::now();
    let mut batch = all_to_partition(&topology, 1, 0..2);
    batch.extend(all_to_partition(&topology, 2, 2..4));
    batch.iter_mut().for_each(|outgoing| outgoing.delay = delay);
    stage.publish(batch).await;
    stage.publish(all_to_partition(&topology, 1, 4..5)).await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let at_once = owner.consumer.next().await;
    assert_eq!(number(&at_once.envelope), 4, "nothing waits for a delay");
    owner.consumer.complete(at_once).await;
    for (owner, wanted) in [
        (owner, [0, 1]),
        (Owner::of(&stage, &topology, 2).await, [2, 3]),
    ] {
        let mut consumer = owner.consumer;
        let came = consumer.drain(2).await;
        assert!(asked.elapsed() + TICK >= delay, "early");
        assert!(came.iter().all(|delivery| delivery.attempt == 1));
        let mut numbers: Vec<_> = came.iter().map(|d| number(&d.envelope)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, wanted);
        consumer.silent(Duration::from_millis(200)).await;
    }
}
