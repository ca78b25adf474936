//! P12: how a delivery stands to the dedup window, and what its settlement makes of it in the store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use longshore_core::{
    Mark, MarkChange, MarkWrite, Name, Outgoing, Part, Published, Reason, Standing, Store, Take,
    Text, Topology, Verdict, mark_name,
};

use super::{
    dead_letters::{letters, set_aside},
    dedup::{WINDOW, done, found, marked, once},
};
use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement},
    member::Owner,
    message::{keys_in, message, number, to, to_session, to_topic},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p12_what_nobody_asked_for_is_unknown,
    p12_what_was_redriven_is_exempt_until_it_ends,
    p12_what_was_redriven_in_a_partition_is_exempt needs Partitions,
    p12_every_queue_of_a_topic_knows_its_own_ids needs DedupAtPublish & Topics,
    p12_a_copy_of_a_plain_client_meets_the_id_that_is_held needs DedupAtPublish & AtomicSettle,
    p12_a_settlement_carries_what_becomes_of_the_id needs AtomicSettle,
    p12_a_settlement_that_is_refused_changes_no_mark needs AtomicSettle,
    p12_only_its_own_mark_is_changed_by_a_settlement needs AtomicSettle,
];

fn take(name: &Text, owner: &str, attempt: u32) -> Take {
    Take {
        name: name.clone(),
        owner: owner.into(),
        attempt,
        lease: WINDOW,
        sole: false,
    }
}

fn store(stage: &Stage) -> Arc<dyn Store> {
    let store = stage.transport.store();
    store.must("the store of a transport that settles with it")
}

async fn asked(stage: &Stage, topology: &Topology, take: Take) -> Mark {
    let scope = topology.scope(Part::Lane(0));
    let marks = store(stage).take(&scope, &[take]).await;
    marks.must("asking the store").remove(0)
}

fn assert_held(mark: &Mark) {
    assert!(
        matches!(mark, Mark::Held { at_most } if !at_most.is_zero()),
        "{mark:?}"
    );
}

async fn p12_what_nobody_asked_for_is_unknown(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = message("plain");
    // As plain clients do: twice, and both are stored.
    for _ in 0..2 {
        let answer = found(&*stage.transport, to(&topology, sent.clone())).await;
        assert_eq!(answer, Published::Accepted);
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    for delivery in consumer.take(2).await {
        assert_eq!(delivery.standing, Standing::Unknown);
        consumer.retry(delivery, Duration::ZERO).await;
    }
    for delivery in consumer.drain(2).await {
        assert_eq!(
            (delivery.attempt, delivery.standing),
            (2, Standing::Unknown)
        );
    }
}

async fn p12_what_was_redriven_is_exempt_until_it_ends(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    stage.publish(vec![to(&topology, message("1"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..2 {
        set_aside(&mut consumer, Reason::Permanent, "").await;
        let letter = letters(&stage, &topology, 1).await.remove(0);
        let admin = stage.transport.admin();
        let answers = admin.redrive(&topology.queue, &[letter.id]).await;
        answers.into_iter().for_each(|a| a.must("redriving"));
        for (attempt, after) in [(1, 0), (2, 200), (3, 0)] {
            let delivery = consumer.next().await;
            assert_eq!(
                (delivery.attempt, delivery.standing),
                (attempt, Standing::Exempt)
            );
            // And nothing of that is a header of the message.
            assert_eq!(delivery.envelope.headers, []);
            let after = Duration::from_millis(after);
            consumer.retry(delivery, after).await;
        }
        let delivery = consumer.next().await;
        assert_eq!(delivery.standing, Standing::Exempt);
        consumer.release(delivery).await;
    }
    let last = consumer.next().await;
    assert_eq!(last.standing, Standing::Exempt);
    consumer.complete(last).await;
    consumer.silent(SILENCE).await;
}

async fn p12_what_was_redriven_in_a_partition_is_exempt(stage: Arc<Stage>) {
    let topology = stage.sessions(2).await;
    let key = keys_in(&topology, 1).next().must("a key");
    stage
        .publish(vec![to_session(&topology, &key, message("1"))])
        .await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let first = set_aside(&mut owner.consumer, Reason::Permanent, "").await;
    assert_eq!(first.standing, Standing::Unknown);
    let letter = letters(&stage, &topology, 1).await.remove(0);
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    let back = owner.consumer.next().await;
    assert_eq!(back.standing, Standing::Exempt);
    owner.hand_over(vec![back]).await;
    let mut owner = Owner::of(&stage, &topology, 1).await;
    let back = owner.consumer.next().await;
    assert_eq!((back.attempt, back.standing), (1, Standing::Exempt));
    owner.consumer.complete(back).await;
}

async fn p12_every_queue_of_a_topic_knows_its_own_ids(stage: Arc<Stage>) {
    let topic = stage.name();
    let bound = |window| {
        let mut topology = Topology::new(stage.name());
        topology.topics.push(topic.clone());
        topology.dedup_window = window;
        topology
    };
    let (first, second, late) = (
        bound(Some(WINDOW)),
        bound(Some(WINDOW)),
        bound(Some(WINDOW)),
    );
    stage.declare(&first).await;
    stage.declare(&second).await;
    let publish = |topic: &Name, envelope| once(to_topic(topic, envelope), WINDOW);
    let sent = message("1");
    let answers = [
        Published::Accepted,
        Published::Duplicate,
        Published::Duplicate,
    ];
    for wanted in answers {
        let answer = found(&*stage.transport, publish(&topic, sent.clone())).await;
        assert_eq!(answer, wanted);
    }
    // Published directly, it is the same message there.
    let direct = once(to(&first, sent.clone()), WINDOW);
    assert_eq!(found(&*stage.transport, direct).await, Published::Duplicate);
    // Publishing again completes what did not reach all.
    stage.declare(&late).await;
    let answer = found(&*stage.transport, publish(&topic, sent.clone())).await;
    assert_eq!(answer, Published::Accepted);
    for topology in [&first, &second, &late] {
        let mut consumer = Consumer::of(&stage, topology).await;
        let delivery = consumer.next().await;
        assert_eq!(delivery.standing, Standing::Held);
        consumer.complete(delivery).await;
        consumer.silent(Duration::from_millis(200)).await;
    }
    // A queue without a window takes every copy, beside those that have one.
    let every = bound(None);
    stage.declare(&every).await;
    for _ in 0..2 {
        found(&*stage.transport, publish(&topic, sent.clone())).await;
    }
    let mut consumer = Consumer::of(&stage, &every).await;
    for delivery in consumer.drain(2).await {
        assert_eq!(delivery.standing, Standing::Unknown);
    }
}

async fn p12_a_copy_of_a_plain_client_meets_the_id_that_is_held(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = once(to(&topology, message("1")), WINDOW);
    let name = mark_name(None, &sent.envelope.id);
    found(&*stage.transport, sent.clone()).await;
    let plain = Outgoing {
        dedup_window: None,
        ..sent.clone()
    };
    stage.publish(vec![plain]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let (mut held, mut unknown) = (None, None);
    for delivery in consumer.take(2).await {
        match delivery.standing {
            Standing::Held => held = Some(delivery),
            Standing::Unknown => unknown = Some(delivery),
            Standing::Exempt => panic!("nobody has redriven {delivery:?}"),
        }
    }
    let (held, unknown) = (held.must("the first"), unknown.must("the plain one"));
    assert_held(&asked(&stage, &topology, take(&name, "plain", 9)).await);
    // A retry of the one that holds it leaves it held, not waiting for anybody's number.
    let waiting = MarkChange::Waiting {
        attempt: 2,
        at_most: WINDOW,
    };
    let after = Duration::ZERO;
    let retry = marked(held, Verdict::Retry { after }, waiting);
    consumer.settle_with(retry).await.must("retrying");
    assert_held(&asked(&stage, &topology, take(&name, "plain", 9)).await);
    let held = consumer.next().await;
    assert_eq!((held.attempt, held.standing), (2, Standing::Held));
    let completed = marked(held, Verdict::Complete, done(WINDOW));
    consumer.settle_with(completed).await.must("completing");
    let mark = asked(&stage, &topology, take(&name, "plain", 9)).await;
    assert_eq!(mark, Mark::Done { reply: None });
    consumer.complete(unknown).await;
}

async fn p12_a_settlement_carries_what_becomes_of_the_id(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let reply = Some(Bytes::from_static(b"\0{\"price\":7}\xff"));
    let waiting = MarkChange::Waiting {
        attempt: 2,
        at_most: WINDOW,
    };
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    let answered = MarkChange::Done {
        window: WINDOW,
        reply: reply.clone(),
    };
    let retry = Verdict::Retry {
        after: Duration::from_secs(30),
    };
    let back = Verdict::Release {
        after: Duration::from_secs(30),
    };
    let ends = [
        (Verdict::Complete, answered),
        (retry, waiting),
        (dead, MarkChange::Released),
        (back, MarkChange::Released),
    ];
    for (at, (verdict, change)) in ends.into_iter().enumerate() {
        stage
            .publish(vec![to(&topology, message(at.to_string()))])
            .await;
        let delivery = consumer.next().await;
        let name = mark_name(None, &delivery.envelope.id);
        let taken = asked(&stage, &topology, take(&name, "this start", 1)).await;
        assert_eq!(taken, Mark::Taken);
        assert_held(&asked(&stage, &topology, take(&name, "another", 1)).await);
        let mut settled = settlement(delivery, verdict);
        settled.mark = Some(MarkWrite {
            name: name.clone(),
            owner: "this start".into(),
            change,
        });
        consumer.settle_with(settled).await.must("settling");
        let mark = asked(&stage, &topology, take(&name, "another", 1)).await;
        match at {
            0 => assert_eq!(
                mark,
                Mark::Done {
                    reply: reply.clone()
                }
            ),
            1 => {
                assert_held(&mark);
                let second = asked(&stage, &topology, take(&name, "second", 2)).await;
                assert_eq!(second, Mark::Taken, "its next attempt");
            }
            _ => assert_eq!(mark, Mark::Taken, "released"),
        }
    }
}

async fn p12_a_settlement_that_is_refused_changes_no_mark(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    stage.publish(vec![to(&topology, message("1"))]).await;
    let delivery = consumer.next().await;
    let name = mark_name(None, &delivery.envelope.id);
    let (receipt, envelope) = (delivery.receipt, delivery.envelope.clone());
    consumer.retry(delivery, Duration::ZERO).await;
    let second = consumer.next().await;
    let taken = asked(&stage, &topology, take(&name, "second start", 2)).await;
    assert_eq!(taken, Mark::Taken);
    // The first start comes back from the dead. Outside sessions its completion may count, its
    // release may not.
    let verdict = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    let mut late = longshore_core::Settlement::new(receipt, 1, verdict, envelope);
    late.mark = Some(MarkWrite {
        name: name.clone(),
        owner: "second start".into(),
        change: MarkChange::Released,
    });
    crate::conformance::consumer::assert_stale(consumer.settle_with(late).await);
    assert_held(&asked(&stage, &topology, take(&name, "another", 2)).await);
    consumer.complete(second).await;
}

async fn p12_only_its_own_mark_is_changed_by_a_settlement(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let retry = |delivery| {
        let after = Duration::from_secs(30);
        settlement(delivery, Verdict::Retry { after })
    };
    for change in [
        MarkChange::Released,
        MarkChange::Waiting {
            attempt: 1,
            at_most: WINDOW,
        },
    ] {
        stage.publish(vec![to(&topology, message("7"))]).await;
        let delivery = consumer.next().await;
        assert_eq!(number(&delivery.envelope), 7);
        let name = mark_name(None, &delivery.envelope.id);
        asked(&stage, &topology, take(&name, "another", 1)).await;
        let mut settled = retry(delivery);
        settled.mark = Some(MarkWrite {
            name: name.clone(),
            owner: "this start".into(),
            change,
        });
        // What is somebody else's is left alone, and the message is settled.
        consumer.settle_with(settled).await.must("settling");
        assert_held(&asked(&stage, &topology, take(&name, "a third", 1)).await);
    }
    consumer.silent(SILENCE).await;
}
