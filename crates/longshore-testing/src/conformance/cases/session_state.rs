//! P11: session state is written with the settlement or not at all.

use std::sync::Arc;

use bytes::Bytes;
use longshore_core::{
    Claim, Delivery, Part, Reason, Session, Settlement, StateWrite, Text, Topology, Verdict,
};

use super::dead_letters::letters;
use crate::conformance::{
    case::cases,
    consumer::{assert_stale, settlement},
    member::Owner,
    message::{keys_in, message, number, partition, to_session},
    must::Must,
    stage::Stage,
};

cases![
    p11_state_is_written_with_the_settlement needs Partitions & AtomicSettle,
    p11_another_try_of_a_message_sees_the_state_before_it needs Partitions & AtomicSettle,
    p11_state_under_a_lost_ownership_is_refused_with_its_settlement needs Partitions & AtomicSettle,
    p11_state_under_an_old_token_is_refused_with_its_settlement needs Partitions & AtomicSettle,
    p11_state_of_256_kib_is_written_with_the_settlement needs Partitions & AtomicSettle,
];

fn state(delivery: &Delivery, token: u64, value: Option<&'static [u8]>) -> StateWrite {
    StateWrite {
        key: delivery.envelope.key.clone().must("a key"),
        message: delivery.envelope.id.clone(),
        token,
        value: value.map(Bytes::from_static),
    }
}

fn stating(delivery: Delivery, token: u64, value: Option<&'static [u8]>) -> Settlement {
    let state = state(&delivery, token, value);
    let mut settled = settlement(delivery, Verdict::Complete);
    settled.state = Some(state);
    settled
}

/// The state of a session as a message sees it.
async fn seen(stage: &Stage, topology: &Topology, key: &Text, message: &Text) -> Option<Bytes> {
    let store = stage.transport.store();
    let store = store.must("the store of a transport that settles with it");
    let scope = topology.scope(scope_of(topology));
    let loaded = store.load(&scope, key, message).await;
    let Session { state, set_aside } = loaded.must("loading");
    assert!(!set_aside);
    state
}

fn scope_of(topology: &Topology) -> Part {
    partition(topology, 1)
}

/// An owner of partition 1, three messages of one session in it, and who they are.
async fn one_session(stage: &Stage) -> (Topology, Text, [Text; 3], Owner) {
    let topology = stage.sessions(2).await;
    let key = keys_in(&topology, 1).next().must("a key");
    let sent: Vec<_> = (0..3).map(|at| message(at.to_string())).collect();
    let ids = [0, 1, 2].map(|at: usize| sent[at].id.clone());
    let batch = sent.into_iter().map(|m| to_session(&topology, &key, m));
    stage.publish(batch.collect()).await;
    let owner = Owner::of(stage, &topology, 1).await;
    (topology, key, ids, owner)
}

async fn p11_state_is_written_with_the_settlement(stage: Arc<Stage>) {
    let (topology, key, [m0, m1, m2], mut owner) = one_session(&stage).await;
    let token = owner.ownership.token;
    for id in [&m0, &m1] {
        assert_eq!(seen(&stage, &topology, &key, id).await, None);
    }
    let first = owner.consumer.next().await;
    assert_eq!(first.envelope.id, m0);
    let settled = stating(first, token, Some(b"one"));
    owner.consumer.settle_with(settled).await.must("completing");
    let one = Some(Bytes::from_static(b"one"));
    assert_eq!(seen(&stage, &topology, &key, &m1).await, one);
    assert_eq!(
        seen(&stage, &topology, &key, &m0).await,
        None,
        "before its own"
    );
    // Also with a dead letter, and cleared.
    let second = owner.consumer.next().await;
    let mut settled = settlement(
        Delivery {
            envelope: second.envelope.clone(),
            defect: None,
            ..second
        },
        Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        },
    );
    settled.state = Some(state(&second, token, Some(b"two")));
    let dead = owner.consumer.settle_with(settled).await;
    dead.must("dead-lettering");
    letters(&stage, &topology, 1).await;
    assert_eq!(seen(&stage, &topology, &key, &m1).await, one);
    let two = Some(Bytes::from_static(b"two"));
    assert_eq!(seen(&stage, &topology, &key, &m2).await, two);
    let third = owner.consumer.next().await;
    let settled = stating(third, token, None);
    owner.consumer.settle_with(settled).await.must("clearing");
    assert_eq!(seen(&stage, &topology, &key, &m2).await, two);
    assert_eq!(seen(&stage, &topology, &key, &m0).await, None);
}

/// The store may also be written apart from a settlement: then a death comes between.
async fn p11_another_try_of_a_message_sees_the_state_before_it(stage: Arc<Stage>) {
    let (topology, key, [m0, m1, _], mut owner) = one_session(&stage).await;
    let store = stage.transport.store().must("a store");
    let scope = topology.scope(scope_of(&topology));
    for attempt in 1..=3 {
        let token = owner.ownership.token;
        store.grant(&scope, token).await.must("granting");
        let first = owner.consumer.next().await;
        assert_eq!((number(&first.envelope), first.attempt), (0, attempt));
        assert_eq!(seen(&stage, &topology, &key, &m0).await, None);
        let write = state(&first, token, Some(b"x"));
        store.save(&scope, &write).await.must("saving");
        if attempt > 1 {
            owner.consumer.start(&first).await;
        }
        drop(owner);
        owner = Owner::of(&stage, &topology, 1).await;
    }
    let token = owner.ownership.token;
    let first = owner.consumer.next().await;
    assert_eq!(seen(&stage, &topology, &key, &m0).await, None);
    let settled = stating(first, token, Some(b"y"));
    owner.consumer.settle_with(settled).await.must("completing");
    let last = Some(Bytes::from_static(b"y"));
    assert_eq!(seen(&stage, &topology, &key, &m1).await, last);
}

async fn p11_state_under_a_lost_ownership_is_refused_with_its_settlement(stage: Arc<Stage>) {
    let (topology, key, [_, m1, _], owner) = one_session(&stage).await;
    let Owner {
        mut consumer,
        ownership,
        member,
    } = owner;
    let first = consumer.next().await;
    drop(member);
    let mut heir = Owner::of(&stage, &topology, 1).await;
    let settled = stating(first, ownership.token, Some(b"late"));
    assert_stale(consumer.settle_with(settled).await);
    assert_eq!(seen(&stage, &topology, &key, &m1).await, None);
    let first = heir.consumer.next().await;
    assert_eq!(number(&first.envelope), 0, "it is the heir's");
    let settled = stating(first, heir.ownership.token, Some(b"one"));
    heir.consumer.settle_with(settled).await.must("completing");
    let one = Some(Bytes::from_static(b"one"));
    assert_eq!(seen(&stage, &topology, &key, &m1).await, one);
}

async fn p11_state_under_an_old_token_is_refused_with_its_settlement(stage: Arc<Stage>) {
    let (topology, key, [_, m1, _], owner) = one_session(&stage).await;
    let old = owner.ownership.token;
    let member = owner.hand_over(Vec::new()).await;
    let mut owner = Owner::by(&stage, member, Claim::Partition(1)).await;
    let first = owner.consumer.next().await;
    let settled = stating(first, old, Some(b"old"));
    assert_stale(owner.consumer.settle_with(settled).await);
    assert_eq!(seen(&stage, &topology, &key, &m1).await, None);
}

async fn p11_state_of_256_kib_is_written_with_the_settlement(stage: Arc<Stage>) {
    static LARGE: [u8; 256 * 1024] = [0xa5; 256 * 1024];
    let (topology, key, [_, m1, m2], mut owner) = one_session(&stage).await;
    let token = owner.ownership.token;
    for value in [&LARGE[..], &LARGE[1..]] {
        let delivery = owner.consumer.next().await;
        let settled = stating(delivery, token, Some(value));
        owner.consumer.settle_with(settled).await.must("completing");
    }
    let now = seen(&stage, &topology, &key, &m2).await;
    assert!(now.as_deref() == Some(&LARGE[1..]));
    let before = seen(&stage, &topology, &key, &m1).await;
    assert!(before.as_deref() == Some(&LARGE[..]));
}
