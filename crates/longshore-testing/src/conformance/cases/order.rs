//! P11: the order of a partition and the attempts of its messages survive every change of its owner.

use std::sync::Arc;

use longshore_core::{
    Claim, Delivery, Ids, Reason, SeededIds, Settlement, Subscription, Topology, Verdict,
};

use super::dead_letters::letters;
use crate::conformance::{
    case::cases,
    consumer::Consumer,
    member::{Member, Owner},
    message::{all_to_partition, number},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p11_what_is_given_back_in_a_partition_waits_for_the_next_owner needs Partitions,
    p11_a_hand_over_keeps_order_and_exact_attempts needs Partitions,
    p11_hand_overs_again_and_again_keep_order needs Partitions,
    p11_a_death_keeps_order_and_makes_suspects_of_what_was_delivered needs Partitions,
    p11_starts_that_were_noted_survive_a_death needs Partitions,
    p11_what_only_sat_in_a_partition_loses_at_most_one_attempt needs Partitions,
    p11_what_came_back_twice_unexplained_runs_alone needs Partitions,
    p11_the_returns_that_make_alone_can_be_fewer needs Partitions,
    p11_a_hand_over_after_a_death_keeps_order needs Partitions,
    p11_order_survives_deaths_and_hand_overs_at_random needs Partitions,
    p11_order_and_starts_survive_a_restart needs Partitions & Outage,
];

fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    deliveries.iter().map(|d| number(&d.envelope)).collect()
}

/// A new owner, and everything of the partition unsettled.
async fn all_of(
    stage: &Stage,
    topology: &Topology,
    range: std::ops::Range<usize>,
) -> (Owner, Vec<Delivery>) {
    let mut owner = Owner::of(stage, topology, 0).await;
    let held = owner.consumer.take(range.len()).await;
    assert_eq!(
        numbers(&held),
        range.collect::<Vec<_>>(),
        "in publish order"
    );
    (owner, held)
}

async fn p11_what_is_given_back_in_a_partition_waits_for_the_next_owner(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..4)).await;
    let (mut owner, mut held) = all_of(&stage, &topology, 0..4).await;
    for at in [0, 1] {
        let delivery = held.remove(at);
        owner.consumer.release(delivery).await;
    }
    owner.consumer.silent(SILENCE).await;
    owner.hand_over(held).await;
    let (owner, held) = all_of(&stage, &topology, 0..4).await;
    assert!(
        held.iter().all(|d| d.attempt == 1 && !d.suspect),
        "{held:?}"
    );
    owner.consumer.complete_all(held).await;
}

async fn p11_a_hand_over_keeps_order_and_exact_attempts(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..40)).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    // 20 reach the worker, up to 12 more wait in its buffer, the rest in the broker.
    let mut held = owner.consumer.take(20).await;
    for at in [0, 3, 5] {
        let done = held.remove(at);
        owner.consumer.complete(done).await;
    }
    // The third start of one and the second of another are over; others had their first.
    let mut wanted = [1; 40];
    for (at, starts) in [(4, 3), (9, 2)] {
        for start in 2..=starts {
            let noted = owner.consumer.start_again(&held[at], start).await;
            noted.must("noting a start");
        }
        held[at].attempt = starts + 1;
    }
    held[2].attempt = 2;
    for delivery in &held {
        wanted[number(&delivery.envelope)] = delivery.attempt;
    }
    let left = numbers(&held);
    owner.hand_over(held).await;
    let mut heir = Owner::of(&stage, &topology, 0).await;
    let mut came = Vec::new();
    for delivery in heir.consumer.drain(37).await {
        let number = number(&delivery.envelope);
        assert!(!delivery.suspect && !delivery.alone, "{delivery:?}");
        assert_eq!(delivery.attempt, wanted[number], "message {number}");
        came.push(number);
    }
    let all: Vec<_> = left.into_iter().chain(20..40).collect();
    assert_eq!(came, all, "in publish order");
    heir.consumer.silent(SILENCE).await;
}

async fn p11_hand_overs_again_and_again_keep_order(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..60)).await;
    let mut member = Member::of(&stage, &topology).await;
    let mut next = 0;
    for round in 0..8 {
        let mut owner = Owner::by(&stage, member, Claim::Partition(0)).await;
        let mut held = owner.consumer.take(4 + round).await;
        let wanted: Vec<_> = (next..next + held.len()).collect();
        assert_eq!(numbers(&held), wanted, "in round {round}");
        assert!(
            held.iter()
                .all(|d| d.attempt == 1 && !d.suspect && !d.alone)
        );
        for _ in 0..2 {
            let done = held.remove(0);
            owner.consumer.complete(done).await;
            next += 1;
        }
        member = owner.hand_over(held).await;
        if round % 2 == 0 {
            member = Member::of(&stage, &topology).await;
        }
    }
}

async fn p11_a_death_keeps_order_and_makes_suspects_of_what_was_delivered(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..50)).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let mut held = owner.consumer.take(15).await;
    for at in [0, 0, 4] {
        let done = held.remove(at);
        owner.consumer.complete(done).await;
    }
    let left = numbers(&held);
    drop(owner);
    stage.publish(all_to_partition(&topology, 0, 50..60)).await;
    let mut heir = Owner::of(&stage, &topology, 0).await;
    let came = heir.consumer.drain(57).await;
    let all: Vec<_> = left.iter().copied().chain(15..60).collect();
    assert_eq!(numbers(&came), all, "in publish order");
    for delivery in &came[..left.len()] {
        // Its first start is noted nowhere and may have killed the process.
        assert!(delivery.suspect && !delivery.alone, "{delivery:?}");
        assert_eq!(delivery.attempt, 2);
    }
    // What had waited in the buffer of the dead may be suspected too, but nothing behind it.
    let suspects = came.iter().take_while(|d| d.suspect).count();
    assert!(
        (left.len()..=left.len() + 32).contains(&suspects),
        "{suspects}"
    );
    for delivery in &came[suspects..] {
        assert!(!delivery.suspect && delivery.attempt == 1, "{delivery:?}");
    }
}

async fn p11_starts_that_were_noted_survive_a_death(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..6)).await;
    let (owner, held) = all_of(&stage, &topology, 0..6).await;
    // Three keys retry in place at once.
    for (at, starts) in [(0, 4), (2, 2), (1, 3)] {
        for start in 2..=starts {
            let noted = owner.consumer.start_again(&held[at], start).await;
            noted.must("noting a start");
        }
    }
    drop(owner);
    let (owner, held) = all_of(&stage, &topology, 0..6).await;
    let attempts: Vec<_> = held.iter().map(|d| d.attempt).collect();
    assert_eq!(attempts, [5, 4, 3, 2, 2, 2]);
    assert!(held.iter().all(|d| d.suspect));
    // A batch of starts is noted whole.
    let starts: Vec<_> = held[1..4].iter().map(|d| (d.receipt, d.attempt)).collect();
    let answers = owner.consumer.settler.start(&starts).await;
    assert_eq!(answers.len(), 3);
    answers.into_iter().for_each(|a| a.must("noting a start"));
    drop(owner);
    let (owner, mut held) = all_of(&stage, &topology, 0..6).await;
    let attempts: Vec<_> = held.iter().map(|d| d.attempt).collect();
    assert_eq!(
        attempts,
        [5, 5, 4, 3, 2, 2],
        "none but the noted ones is one more"
    );
    // Its starts end with it: what a dead letter says, and what a redriven one forgets.
    let poison = held.remove(0);
    let verdict = Verdict::DeadLetter {
        reason: Reason::Crashed,
        detail: String::new(),
    };
    let settlement = Settlement::new(poison.receipt, 4, verdict, poison.envelope);
    let settled = owner.consumer.settle_with(settlement).await;
    settled.must("dead-lettering");
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_eq!(letter.attempts, 4);
    owner.consumer.complete_all(held).await;
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    owner.hand_over(Vec::new()).await;
    let (owner, held) = all_of(&stage, &topology, 0..1).await;
    assert_eq!((held[0].attempt, held[0].suspect), (1, false));
    drop(owner);
    let (_owner, held) = all_of(&stage, &topology, 0..1).await;
    assert_eq!(held[0].attempt, 2, "the starts of its former life are gone");
}

async fn p11_what_only_sat_in_a_partition_loses_at_most_one_attempt(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..20)).await;
    for death in 1..=5 {
        let (owner, held) = all_of(&stage, &topology, 0..20).await;
        let killer = &held[0];
        assert_eq!(killer.attempt, death);
        owner.consumer.start(killer).await;
        for innocent in &held[1..] {
            let number = number(&innocent.envelope);
            assert!(innocent.attempt <= 2, "message {number}: {innocent:?}");
        }
    }
}

async fn p11_what_came_back_twice_unexplained_runs_alone(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..3)).await;
    for death in 0..4 {
        let (owner, held) = all_of(&stage, &topology, 0..3).await;
        for delivery in &held {
            assert_eq!(delivery.suspect, death > 0, "after {death} deaths");
            assert_eq!(delivery.alone, death > 1, "after {death} deaths");
        }
        owner.consumer.start(&held[0]).await;
    }
    // What comes later stands for itself.
    let (mut owner, held) = all_of(&stage, &topology, 0..3).await;
    stage.publish(all_to_partition(&topology, 0, 3..5)).await;
    let later = owner.consumer.take(2).await;
    assert!(later.iter().all(|d| !d.suspect && !d.alone), "{later:?}");
    owner.consumer.complete_all(held).await;
    owner.consumer.complete_all(later).await;
}

async fn p11_the_returns_that_make_alone_can_be_fewer(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..3)).await;
    drop(all_of(&stage, &topology, 0..3).await);
    let member = Member::of(&stage, &topology).await;
    let ownership = member.own(Claim::Partition(0)).await;
    let subscription = Subscription {
        suspect_returns: 1,
        ..member.subscription(&stage, ownership)
    };
    let mut consumer = Consumer::on(&*member.transport, subscription).await;
    let held = consumer.take(3).await;
    assert!(held.iter().all(|d| d.suspect && d.alone), "{held:?}");
    consumer.complete_all(held).await;
}

async fn p11_a_hand_over_after_a_death_keeps_order(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.publish(all_to_partition(&topology, 0, 0..45)).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    owner.consumer.take(5).await;
    drop(owner);
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let mut held = owner.consumer.take(5).await;
    assert_eq!(numbers(&held), [0, 1, 2, 3, 4]);
    owner.consumer.start(&held[1]).await;
    held[1].attempt = 3;
    owner.hand_over(held).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let held = owner.consumer.take(5).await;
    assert_eq!(numbers(&held), [0, 1, 2, 3, 4]);
    let attempts: Vec<_> = held.iter().map(|d| d.attempt).collect();
    assert_eq!(attempts, [2, 3, 2, 2, 2]);
    assert!(
        held.iter().all(|d| !d.suspect),
        "a hand-over explains itself"
    );
    owner.consumer.complete_all(held).await;
    let rest = owner.consumer.drain(40).await;
    assert!(numbers(&rest).into_iter().eq(5..45));
}

/// Owners that die, hand over, retry in place and complete whatever is next of a session.
async fn p11_order_survives_deaths_and_hand_overs_at_random(stage: Arc<Stage>) {
    const COUNT: usize = 100;
    let chance = SeededIds::new(11);
    let topology = stage.sessions(1).await;
    stage
        .publish(all_to_partition(&topology, 0, 0..COUNT))
        .await;
    let mut done = [false; COUNT];
    let mut starts = [0; COUNT];
    while done.contains(&false) {
        let mut owner = Owner::of(&stage, &topology, 0).await;
        let left = done.iter().filter(|done| !**done).count();
        let mut held = owner.consumer.take(left.min(24)).await;
        let wanted: Vec<_> = (0..COUNT).filter(|at| !done[*at]).take(24).collect();
        assert_eq!(numbers(&held), wanted, "in publish order");
        for _ in 0..chance.next() % 12 + 2 {
            if held.is_empty() {
                break;
            }
            let at = chance.next() as usize % held.len().min(6);
            let (next, number) = (held[at].attempt, number(&held[at].envelope));
            assert!(next > starts[number], "start {next} of {number} again");
            if next > 1 {
                let noted = owner.consumer.start_again(&held[at], next).await;
                noted.must("noting a start");
            }
            starts[number] = next;
            held[at].attempt = next + 1;
            if !chance.next().is_multiple_of(3) {
                let delivery = held.remove(at);
                let completed = Settlement::complete(delivery.receipt, next);
                let settled = owner.consumer.settle_with(completed).await;
                settled.must("completing");
                done[number] = true;
            }
        }
        if !chance.next().is_multiple_of(3) {
            owner.hand_over(held).await;
        }
    }
    let mut last = Owner::of(&stage, &topology, 0).await;
    last.consumer.silent(SILENCE).await;
}

async fn p11_order_and_starts_survive_a_restart(stage: Arc<Stage>) {
    let topology = stage.sessions(1).await;
    stage.settle().await;
    stage.publish(all_to_partition(&topology, 0, 0..40)).await;
    let mut owner = Owner::of(&stage, &topology, 0).await;
    let mut held = owner.consumer.take(10).await;
    let done = held.remove(1);
    owner.consumer.complete(done).await;
    for start in 2..=3 {
        let noted = owner.consumer.start_again(&held[0], start).await;
        noted.must("noting a start");
    }
    let left = numbers(&held);
    stage.faults().down().await;
    stage.faults().up().await;
    drop(owner);
    let mut heir = Owner::of(&stage, &topology, 0).await;
    let came = heir.consumer.drain(39).await;
    let all: Vec<_> = left.into_iter().chain(10..40).collect();
    assert_eq!(numbers(&came), all, "in publish order");
    assert_eq!(came[0].attempt, 4, "the starts that were noted");
    assert!(came[1..].iter().all(|d| d.attempt <= 2), "{came:?}");
    heir.consumer.silent(SILENCE).await;
}
