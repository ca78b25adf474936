//! P11: what becomes of an ownership, and of what ran under it, when it is lost.

use std::{sync::Arc, time::Duration};

use longshore_core::{Claim, Delivery, ErrorKind, Ownership, Settlement, Topology};

use super::settlement::verdicts;
use crate::conformance::{
    case::cases,
    consumer::{Consumer, assert_stale},
    member::{Member, Owner},
    message::{all_to_partition, number},
    must::Must,
    stage::{PATIENCE, SILENCE, Stage, options},
};

cases![
    p11_fencing_tokens_grow_over_a_restart needs Partitions & Outage,
    p11_what_its_owner_has_lost_it_cannot_settle needs Partitions,
    p11_a_cut_connection_loses_ownerships_once_or_not_at_all needs Partitions & Cut,
    p11_a_frozen_broker_loses_ownerships_once_or_not_at_all needs Partitions & Freeze,
];

async fn p11_fencing_tokens_grow_over_a_restart(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    stage.settle().await;
    stage.publish(all_to_partition(&topology, 0, 0..3)).await;
    let held = owner.consumer.take(3).await;
    let token = owner.ownership.token;
    stage.faults().down().await;
    stage.faults().up().await;
    drop((owner, held));
    let mut heir = Owner::of(&stage, &topology, 0).await;
    let newer = heir.ownership.token;
    assert!(newer > token, "{newer} after {token}");
    stage.publish(all_to_partition(&topology, 0, 3..4)).await;
    for wanted in 0..4 {
        let delivery = heir.consumer.next().await;
        assert_eq!(number(&delivery.envelope), wanted, "{delivery:?}");
        heir.consumer.complete(delivery).await;
    }
}

async fn p11_what_its_owner_has_lost_it_cannot_settle(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let Owner {
        mut consumer,
        member,
        ..
    } = Owner::of(&stage, &topology, 1).await;
    stage.publish(all_to_partition(&topology, 1, 0..8)).await;
    let held = consumer.take(6).await;
    // It leaves with everything unsettled: the next owner may have it from now on.
    drop(member);
    let mut heir = Owner::of(&stage, &topology, 1).await;
    let again = heir.consumer.take(8).await;
    for (at, delivery) in held.into_iter().enumerate() {
        let receipt = delivery.receipt;
        let noted = consumer.start_again(&delivery, 2).await;
        let error = noted.err().must("a start without ownership");
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        let [_, dead, release] = verdicts();
        let verdict = if at % 2 == 0 { dead } else { release };
        assert_stale(consumer.settle(delivery, verdict).await);
        let completed = Settlement::complete(receipt, 1);
        assert_stale(consumer.settle_with(completed).await);
    }
    let numbers: Vec<_> = again.iter().map(|d| number(&d.envelope)).collect();
    assert!(numbers.into_iter().eq(0..8), "the heir has all of them");
    // The dead hand has touched nothing of it.
    heir.consumer.complete_all(again).await;
    heir.consumer.silent(SILENCE).await;
    assert_eq!(stage.stats(&topology).await.dead, 0);
}

async fn p11_a_cut_connection_loses_ownerships_once_or_not_at_all(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let member = Member::of(&stage, &topology).await;
    let mut owner = Owner::by(&stage, member, Claim::Partition(0)).await;
    stage.publish(all_to_partition(&topology, 0, 0..10)).await;
    let held = owner.consumer.take(4).await;
    stage.faults().cut_now().await;
    let lost = owner.member.lost(Duration::from_secs(5)).await;
    goes_on(&stage, &topology, owner, held, lost).await;
}

async fn p11_a_frozen_broker_loses_ownerships_once_or_not_at_all(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut hurried = options();
    hurried.heartbeat = Duration::from_secs(1);
    hurried.confirm_timeout = Duration::from_secs(2);
    let member = Member::on(&stage, stage.open_with(hurried).await, &topology).await;
    let mut owner = Owner::by(&stage, member, Claim::Partition(0)).await;
    stage.publish(all_to_partition(&topology, 0, 0..10)).await;
    let held = owner.consumer.take(4).await;
    stage.faults().freeze_now().await;
    let lost = owner.member.lost(Duration::from_secs(8)).await;
    stage.faults().thaw().await;
    let lost = match lost {
        None => owner.member.lost(Duration::from_secs(3)).await,
        lost => lost,
    };
    goes_on(&stage, &topology, owner, held, lost).await;
}

/// After a loss everything of it is stale and the partition can be owned again; without one, everything
/// still holds.
async fn goes_on(
    stage: &Stage,
    topology: &Topology,
    mut owner: Owner,
    held: Vec<Delivery>,
    lost: Option<Ownership>,
) {
    let Some(lost) = lost else {
        let rival = Member::of(stage, topology).await;
        assert_eq!(rival.acquire(Claim::Partition(0)).await, None);
        owner.consumer.complete_all(held).await;
        in_order(&mut owner.consumer, 4).await;
        return;
    };
    assert_eq!(lost, owner.ownership);
    let receipts: Vec<_> = held.iter().map(|d| d.receipt).collect();
    owner.consumer.loses(&receipts).await;
    for receipt in receipts {
        let completed = Settlement::complete(receipt, 1);
        assert_stale(owner.consumer.settle_with(completed).await);
    }
    drop(owner.consumer);
    let again = owner.member.own(Claim::Partition(0)).await;
    assert!(again.token > lost.token, "the token has to grow");
    let mut consumer = owner.member.consume(stage, again).await;
    in_order(&mut consumer, 0).await;
    assert_eq!(owner.member.lost(SILENCE).await, None, "told once");
}

/// Completes what is left of ten messages and ends the case unless it comes in order from `next` on.
async fn in_order(consumer: &mut Consumer, next: usize) {
    for wanted in next..10 {
        let delivery = consumer.maybe(PATIENCE).await.must("what is left");
        assert_eq!(number(&delivery.envelope), wanted, "{delivery:?}");
        consumer.complete(delivery).await;
    }
    consumer.silent(SILENCE).await;
}
