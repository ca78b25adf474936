//! P11: a partition has one owner at a time, over all processes.

use std::{sync::Arc, time::Duration};

use longshore_core::{Claim, Declare, ErrorKind, Ownership, Settlement};
use tokio::time::Instant;

use crate::conformance::{
    case::cases,
    member::{Member, Owner},
    message::{all_to_partition, number},
    must::Must,
    stage::{GRACE, SILENCE, Stage},
};

cases![
    p11_a_partition_has_one_owner needs Partitions,
    p11_two_workers_of_one_client_exclude_each_other needs Partitions,
    p11_seats_and_the_plain_queue_have_one_owner_each needs Partitions,
    p11_one_claim_of_many_at_once_is_granted_once needs Partitions,
    p11_fencing_tokens_grow_over_releases_and_deaths needs Partitions,
    p11_the_living_are_counted needs Partitions,
    p11_free_partitions_are_those_nobody_owns needs Partitions,
    p11_the_claims_of_the_dead_become_free needs Partitions,
    p11_what_the_dead_claimed_and_never_consumed_becomes_free needs Partitions,
    p11_a_client_that_closes_leaves needs Partitions,
    p11_an_ownership_is_kept_while_its_process_lives needs Partitions,
    p11_a_partition_cannot_be_consumed_without_owning_it needs Partitions,
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
    let one = Member::on(&stage, stage.transport.clone(), &topology).await;
    let other = Member::on(&stage, stage.transport.clone(), &topology).await;
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
    for dies in [false, true, true, false] {
        let mut owner = Owner::of(&stage, &topology, 1).await;
        let token = owner.ownership.token;
        assert!(token > last, "token {token} after {last}");
        last = token;
        if dies {
            // A lease may have to be renewed once to be as short as the locks.
            owner.consumer.silent(stage.lock() / 2).await;
        } else {
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
    assert!(died.elapsed() < heir.succession, "{:?}", died.elapsed());
    heir.until_live(1).await;
}

async fn p11_what_the_dead_claimed_and_never_consumed_becomes_free(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let dying = Member::of(&stage, &topology).await;
    let heir = Member::of(&stage, &topology).await;
    heir.until_live(2).await;
    dying.own(Claim::Partition(1)).await;
    let died = Instant::now();
    drop(dying);
    heir.own(Claim::Partition(1)).await;
    assert!(died.elapsed() < heir.succession, "{:?}", died.elapsed());
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
    let error = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .err();
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
