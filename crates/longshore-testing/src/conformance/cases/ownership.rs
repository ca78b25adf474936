//! P11: a partition has one owner at a time, over all processes.

use std::{sync::Arc, time::Duration};

use longshore_core::{Claim, Declare, Delivery, ErrorKind, Ownership, Settlement, Topology};
use tokio::time::Instant;

use super::settlement::verdicts;
use crate::conformance::{
    case::cases,
    consumer::{Consumer, assert_stale},
    member::{Member, Owner, SUCCESSION},
    message::{all_to_partition, number},
    must::Must,
    stage::{GRACE, PATIENCE, SILENCE, Stage, options},
};

cases![
    p11_a_partition_has_one_owner needs Partitions,
    p11_two_workers_of_one_client_exclude_each_other needs Partitions,
    p11_seats_and_the_plain_queue_have_one_owner_each needs Partitions,
    p11_one_claim_of_many_at_once_is_granted_once needs Partitions,
    p11_fencing_tokens_grow_over_releases_and_deaths needs Partitions,
    p11_fencing_tokens_grow_over_a_restart needs Partitions & Outage,
    p11_the_living_are_counted needs Partitions,
    p11_free_partitions_are_those_nobody_owns needs Partitions,
    p11_the_claims_of_the_dead_become_free needs Partitions,
    p11_a_client_that_closes_leaves needs Partitions,
    p11_an_ownership_is_kept_while_its_process_lives needs Partitions,
    p11_what_its_owner_has_lost_it_cannot_settle needs Partitions,
    p11_a_partition_cannot_be_consumed_without_owning_it needs Partitions,
    p11_a_cut_connection_loses_ownerships_once_or_not_at_all needs Partitions & Cut,
    p11_a_frozen_broker_loses_ownerships_once_or_not_at_all needs Partitions & Freeze,
];

async fn p11_a_partition_has_one_owner(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let (one, other) = (
        Member::of(&stage, &topology).await,
        Member::of(&stage, &topology).await,
    );
    let mut owned = Vec::new();
    for index in 0..4 {
        let claim = Claim::Partition(index);
        let (first, second) = if index % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        owned.push(first.acquire(claim).await.must("a free partition"));
        for _ in 0..3 {
            assert_eq!(second.acquire(claim).await, None, "partition {index}");
        }
    }
    // What the one gives up the other can have at once, and only that.
    one.release(owned[0]).await;
    let asked = Instant::now();
    other.own(Claim::Partition(0)).await;
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
    assert_eq!(one.acquire(Claim::Partition(0)).await, None);
    assert_eq!(other.acquire(Claim::Partition(2)).await, None);
}

async fn p11_two_workers_of_one_client_exclude_each_other(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let one = Member::on(stage.transport.clone(), &topology).await;
    let other = Member::on(stage.transport.clone(), &topology).await;
    one.until_live(2).await;
    let owned = one.own(Claim::Partition(1)).await;
    assert_eq!(other.acquire(Claim::Partition(1)).await, None);
    let kept = other.own(Claim::Partition(0)).await;
    assert_eq!(one.acquire(Claim::Partition(0)).await, None);
    one.release(owned).await;
    other.own(Claim::Partition(1)).await;
    // The end of one worker takes nothing from the other.
    drop(one);
    let mut consumer = other.consume(&stage, kept).await;
    stage.publish(all_to_partition(&topology, 0, 0..1)).await;
    let delivery = consumer.next().await;
    consumer.complete(delivery).await;
    assert_eq!(other.lost(SILENCE).await, None);
}

async fn p11_seats_and_the_plain_queue_have_one_owner_each(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let (one, other) = (
        Member::of(&stage, &topology).await,
        Member::of(&stage, &topology).await,
    );
    let claims = [
        Claim::Seat(0),
        Claim::Seat(3),
        Claim::Forwarder,
        Claim::Partition(0),
    ];
    for claim in claims {
        let owned = one.acquire(claim).await.must("a free claim");
        assert_eq!(other.acquire(claim).await, None, "{claim:?}");
        one.release(owned).await;
        other.own(claim).await;
        assert_eq!(one.acquire(claim).await, None, "{claim:?}");
    }
    one.own(Claim::Seat(1)).await;
}

async fn p11_one_claim_of_many_at_once_is_granted_once(stage: Arc<Stage>) {
    const RIVALS: usize = 6;
    let topology = stage.sessions(8).await;
    let mut rivals = Vec::new();
    for _ in 0..RIVALS {
        rivals.push(Member::of(&stage, &topology).await);
    }
    let mut rounds = Vec::new();
    for (at, rival) in rivals.into_iter().enumerate() {
        rounds.push(tokio::spawn(async move {
            let mut granted = Vec::new();
            for step in 0..8 {
                let index = ((step + at) % 8) as u16;
                granted.extend(rival.acquire(Claim::Partition(index)).await);
            }
            (rival, granted)
        }));
    }
    let mut granted: Vec<Ownership> = Vec::new();
    let mut living = Vec::new();
    for round in rounds {
        let (rival, of_rival) = round.await.must("a rival");
        granted.extend(of_rival);
        living.push(rival);
    }
    let mut claims: Vec<_> = granted.iter().map(|ownership| ownership.claim).collect();
    claims.sort_unstable();
    let all: Vec<_> = (0..8).map(Claim::Partition).collect();
    assert_eq!(claims, all, "each granted to exactly one");
}

async fn p11_fencing_tokens_grow_over_releases_and_deaths(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut last = 0;
    for round in 0..5 {
        let owner = Owner::of(&stage, &topology, 1).await;
        let token = owner.ownership.token;
        assert!(token > last, "token {token} after {last} in round {round}");
        last = token;
        if round % 2 == 0 {
            owner.hand_over(Vec::new()).await;
        }
    }
    // Owned, given up and owned again by one process, without ever consuming.
    let member = Member::of(&stage, &topology).await;
    for _ in 0..2 {
        let ownership = member.own(Claim::Partition(1)).await;
        assert!(ownership.token > last);
        last = ownership.token;
        member.release(ownership).await;
    }
}

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

async fn p11_the_living_are_counted(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let one = Member::of(&stage, &topology).await;
    one.until_live(1).await;
    let two = Member::of(&stage, &topology).await;
    let three = Member::of(&stage, &topology).await;
    for member in [&one, &two, &three] {
        member.until_live(3).await;
    }
    drop(two);
    one.until_live(2).await;
    three.until_live(2).await;
    drop(one);
    three.until_live(1).await;
    // And the living are not given up in time.
    tokio::time::sleep(stage.lock() * 2).await;
    assert_eq!(three.live().await, 1);
}

async fn p11_free_partitions_are_those_nobody_owns(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let watcher = Member::of(&stage, &topology).await;
    watcher.until_free(&[0, 1, 2, 3]).await;
    let one = Owner::of(&stage, &topology, 1).await;
    let three = Owner::of(&stage, &topology, 3).await;
    watcher.until_free(&[0, 2]).await;
    one.hand_over(Vec::new()).await;
    watcher.until_free(&[0, 1, 2]).await;
    drop(three);
    watcher.until_free(&[0, 1, 2, 3]).await;
}

async fn p11_the_claims_of_the_dead_become_free(stage: Arc<Stage>) {
    let topology = stage.sessions(4).await;
    let dying = Owner::of(&stage, &topology, 2).await;
    for claim in [Claim::Seat(0), Claim::Forwarder, Claim::Partition(3)] {
        dying.member.own(claim).await;
    }
    let heir = Member::of(&stage, &topology).await;
    heir.until_live(2).await;
    let died = Instant::now();
    drop(dying);
    let claims = [
        Claim::Partition(2),
        Claim::Seat(0),
        Claim::Forwarder,
        Claim::Partition(3),
    ];
    for claim in claims {
        heir.own(claim).await;
    }
    assert!(died.elapsed() < SUCCESSION, "{:?}", died.elapsed());
    heir.until_live(1).await;
}

async fn p11_a_client_that_closes_leaves(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    stage.publish(all_to_partition(&topology, 0, 0..3)).await;
    let held = owner.consumer.take(3).await;
    owner.member.transport.close(Duration::from_secs(2)).await;
    let mut heir = Owner::of(&stage, &topology, 0).await;
    let again = heir.consumer.take(3).await;
    let numbers: Vec<_> = again.iter().map(|d| number(&d.envelope)).collect();
    assert_eq!(numbers, [0, 1, 2]);
    heir.consumer.complete_all(again).await;
    for delivery in held {
        let settled = Settlement::complete(delivery.receipt, delivery.attempt);
        let answer = owner.consumer.settle_with(settled).await;
        assert!(answer.is_err(), "settled after its client was closed");
    }
    let topology = Arc::new(topology);
    let transport = &owner.member.transport;
    let error = transport.join(&topology, Declare::Create).await.err();
    let error = error.must("joining over a closed client");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

async fn p11_an_ownership_is_kept_while_its_process_lives(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    owner.member.own(Claim::Seat(0)).await;
    owner.member.own(Claim::Forwarder).await;
    stage.publish(all_to_partition(&topology, 0, 0..5)).await;
    let held = owner.consumer.take(5).await;
    let rival = Member::of(&stage, &topology).await;
    let from = Instant::now();
    while from.elapsed() < stage.lock() * 3 {
        for claim in [Claim::Partition(0), Claim::Seat(0), Claim::Forwarder] {
            assert_eq!(rival.acquire(claim).await, None, "{claim:?}");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(owner.consumer.lost().await, []);
    assert_eq!(owner.member.lost(Duration::from_millis(50)).await, None);
    owner.consumer.complete_all(held).await;
    owner.consumer.silent(SILENCE).await;
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

async fn p11_a_partition_cannot_be_consumed_without_owning_it(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let member = Member::of(&stage, &topology).await;
    let ownership = member.own(Claim::Partition(0)).await;
    let mut nobody = member.subscription(&stage, ownership);
    nobody.ownership = None;
    let refused = member.transport.subscribe(nobody).await;
    assert!(refused.is_err(), "consumed by nobody");
    member.release(ownership).await;
    let heir = Member::of(&stage, &topology).await;
    let newer = heir.own(Claim::Partition(0)).await;
    let late = member.subscription(&stage, ownership);
    match member.transport.subscribe(late).await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Stale, "{error}"),
        Ok(_) => panic!("consumed under an ownership that was given back"),
    }
    heir.consume(&stage, newer).await;
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
    let member = Member::on(stage.open_with(hurried).await, &topology).await;
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
