//! Dedup windows: how long an id is held, and what settlements make of marks and states.

mod rig;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Claim, Declare, Delivery, ErrorKind, Mark, MarkChange, MarkWrite, Outgoing, Part, Published,
    Reason, Settlement, Standing, StateWrite, Store, Take, Text, Topology, Transport, Verdict,
    mark_name,
};
use longshore_memory::MemoryBroker;

use rig::{Consumer, acquire, broker, message, name, outgoing, publish, verdict};

const WINDOW: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn topology(partitions: u16) -> Arc<Topology> {
    let mut topology = Topology::new(name("orders"));
    (topology.partitions, topology.dedup_window) = (partitions, Some(WINDOW));
    Arc::new(topology)
}

async fn plain(broker: &MemoryBroker) -> (Arc<dyn Transport>, Arc<Topology>, Consumer) {
    let (transport, topology) = (broker.open(), topology(0));
    let consumer = Consumer::of(&transport, &topology, Part::Lane(0), None).await;
    (transport, topology, consumer)
}

fn done() -> MarkChange {
    MarkChange::Done {
        window: WINDOW,
        reply: None,
    }
}

fn mark(delivery: &Delivery, owner: &str, change: MarkChange) -> Option<MarkWrite> {
    Some(MarkWrite {
        name: mark_name(delivery.envelope.key.as_deref(), &delivery.envelope.id),
        owner: owner.into(),
        change,
    })
}

fn complete(delivery: &Delivery, mark: Option<MarkWrite>) -> Settlement {
    let mut settlement = Settlement::complete(delivery.receipt, delivery.attempt);
    settlement.mark = mark;
    settlement
}

fn retry(delivery: &Delivery, after: Duration, owner: &str) -> Settlement {
    let waiting = MarkChange::Waiting {
        attempt: delivery.attempt + 1,
        at_most: after + Duration::from_secs(60),
    };
    let mut settlement = verdict(delivery, delivery.attempt, Verdict::Retry { after });
    settlement.mark = mark(delivery, owner, waiting);
    settlement
}

async fn ask(store: &Arc<dyn Store>, scope: &Text, delivery: &Delivery, owner: &str) -> Mark {
    let take = Take {
        name: mark_name(delivery.envelope.key.as_deref(), &delivery.envelope.id),
        owner: owner.into(),
        attempt: delivery.attempt,
        lease: Duration::from_secs(30),
        sole: false,
    };
    store
        .take(scope, &[take])
        .await
        .expect("an answer")
        .remove(0)
}

#[tokio::test(start_paused = true)]
async fn an_id_is_known_from_its_publish_until_its_window_has_passed_since_completion() {
    let (transport, topology, mut consumer) = plain(&broker()).await;
    let again = async || publish(&transport, &topology, None, "a").await;
    assert_eq!(again().await, Published::Accepted);
    assert_eq!(again().await, Published::Duplicate);
    let first = consumer.next().await;
    assert_eq!(first.standing, Standing::Held);
    assert_eq!(again().await, Published::Duplicate);
    // A failed copy holds its id for its own retry, however long that takes.
    let settled = consumer.settle(retry(&first, DAY, "")).await;
    assert_eq!((settled, again().await), (Ok(()), Published::Duplicate));
    let second = consumer.next().await;
    assert_eq!((second.attempt, second.standing), (2, Standing::Held));
    assert_eq!(
        consumer
            .settle(complete(&second, mark(&second, "", done())))
            .await,
        Ok(())
    );
    tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
    assert_eq!(again().await, Published::Duplicate);
    assert!(consumer.is_quiet().await);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(again().await, Published::Accepted);
    assert_eq!(consumer.next().await.standing, Standing::Held);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_holds_its_id_for_as_long_as_it_may_wait() {
    let (transport, topology, mut consumer) = plain(&broker()).await;
    let delay = DAY * 300;
    let later = Outgoing {
        delay,
        ..outgoing(&topology, message(None, "a"))
    };
    assert!(
        transport
            .publish(vec![later])
            .await
            .iter()
            .all(Result::is_ok)
    );
    tokio::time::advance(delay + DAY * 29).await;
    assert_eq!(
        publish(&transport, &topology, None, "a").await,
        Published::Duplicate
    );
    assert_eq!(consumer.next().await.standing, Standing::Held);
    // Past that it asks like any other.
    let later = publish(&transport, &topology, None, "b").await;
    tokio::time::advance(DAY * 31).await;
    assert_eq!(
        (later, consumer.next().await.standing),
        (Published::Accepted, Standing::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_releases_its_id_and_a_redriven_one_is_exempt() {
    let (transport, topology, mut consumer) = plain(&broker()).await;
    publish(&transport, &topology, None, "a").await;
    let first = consumer.next().await;
    // Said or not, a dead letter holds nothing.
    assert_eq!(consumer.dead_letter(&first).await, Ok(()));
    assert_eq!(
        publish(&transport, &topology, None, "a").await,
        Published::Accepted
    );
    let admin = transport.admin();
    let dead = admin
        .dead_letters(&topology.queue, None, 9)
        .await
        .expect("a list");
    let answers = admin.redrive(&topology.queue, &[dead[0].id.clone()]).await;
    assert!(answers.iter().all(Result::is_ok));
    let taken = consumer.take(2).await;
    let standings: Vec<_> = taken.iter().map(|d| d.standing).collect();
    assert_eq!(standings, [Standing::Held, Standing::Exempt]);
    // Its retry is exempt too, and touches nobody's mark.
    assert_eq!(
        consumer.settle(retry(&taken[1], Duration::ZERO, "")).await,
        Ok(())
    );
    let again = consumer.next().await;
    assert_eq!((again.attempt, again.standing), (2, Standing::Exempt));
    let mut set_aside = verdict(
        &again,
        2,
        Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        },
    );
    set_aside.mark = mark(&again, "", MarkChange::Released);
    assert_eq!(consumer.settle(set_aside).await, Ok(()));
    assert_eq!(
        publish(&transport, &topology, None, "a").await,
        Published::Duplicate
    );
    assert_eq!(consumer.complete(&taken[0]).await, Ok(()));
    // Its completion counts like any other.
    let dead = admin
        .dead_letters(&topology.queue, None, 9)
        .await
        .expect("a list");
    admin.redrive(&topology.queue, &[dead[0].id.clone()]).await;
    let exempt = consumer.next().await;
    assert_eq!(
        consumer
            .settle(complete(&exempt, mark(&exempt, "", done())))
            .await,
        Ok(())
    );
    let store = transport.store().expect("a store");
    let known = ask(&store, &topology.scope(Part::Lane(0)), &exempt, "x").await;
    assert_eq!(known, Mark::Done { reply: None });
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_did_not_take_its_id_asks_and_its_settlement_carries_the_answer() {
    let broker = broker();
    let (transport, topology, mut consumer) = plain(&broker).await;
    let (store, scope) = (
        transport.store().expect("a store"),
        topology.scope(Part::Lane(0)),
    );
    for _ in 0..2 {
        let plain = Outgoing {
            dedup_window: None,
            ..outgoing(&topology, message(None, "a"))
        };
        let answers = transport.publish(vec![plain]).await;
        assert!(matches!(answers[..], [Ok(Published::Accepted)]));
    }
    let taken = consumer.take(2).await;
    assert!(taken.iter().all(|d| d.standing == Standing::Unknown));
    assert_eq!(ask(&store, &scope, &taken[0], "x").await, Mark::Taken);
    assert!(matches!(
        ask(&store, &scope, &taken[1], "y").await,
        Mark::Held { .. }
    ));
    // A retry waits with its id; only a delivery of that attempt is given it.
    assert_eq!(
        consumer.settle(retry(&taken[0], Duration::ZERO, "x")).await,
        Ok(())
    );
    let second = consumer.next().await;
    assert!(matches!(
        ask(&store, &scope, &taken[1], "y").await,
        Mark::Held { .. }
    ));
    assert_eq!(ask(&store, &scope, &second, "z").await, Mark::Taken);
    // A settlement that is stale writes no mark either.
    broker.lose_locks();
    let late = complete(&second, mark(&second, "z", done()));
    assert_eq!(consumer.settle(late).await, Err(ErrorKind::Stale));
    assert!(matches!(
        ask(&store, &scope, &second, "y").await,
        Mark::Held { .. }
    ));
    let again = consumer.take(2).await;
    let third = again.iter().find(|d| d.attempt == 3).expect("the third");
    assert_eq!(
        consumer
            .settle(complete(third, mark(third, "z", done())))
            .await,
        Ok(())
    );
    assert_eq!(
        ask(&store, &scope, &taken[1], "y").await,
        Mark::Done { reply: None }
    );
    assert_eq!(
        publish(&transport, &topology, None, "a").await,
        Published::Duplicate
    );
}

#[tokio::test(start_paused = true)]
async fn a_settlement_in_a_session_writes_outcome_state_and_mark_or_nothing() {
    let (broker, topology) = (broker(), topology(1));
    let transport = broker.open();
    let member = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    for id in ["a", "b"] {
        assert_eq!(
            publish(&transport, &topology, Some("k"), id).await,
            Published::Accepted
        );
    }
    assert_eq!(
        publish(&transport, &topology, Some("k"), "a").await,
        Published::Duplicate
    );
    let owned = acquire(&*member, Claim::Partition(0))
        .await
        .expect("it is free");
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let taken = consumer.take(2).await;
    assert!(taken.iter().all(|d| d.standing == Standing::Held));
    let store = transport.store().expect("a store");
    let scope = topology.scope(taken[0].part);
    let state = async |message: &str| {
        let session = store.load(&scope, &"k".into(), &message.into()).await;
        session.expect("a session").state
    };
    let settlement = |delivery: &Delivery, token, value: Vec<u8>| {
        let mut settlement = complete(delivery, mark(delivery, "", done()));
        settlement.state = Some(StateWrite {
            key: "k".into(),
            message: delivery.envelope.id.clone(),
            token,
            value: Some(value.into()),
        });
        settlement
    };
    // What cannot be written leaves everything as it was, the lock too.
    let large = settlement(&taken[0], owned.token, vec![0; 256 * 1024 + 1]);
    assert_eq!(consumer.settle(large).await, Err(ErrorKind::Invalid));
    let forged = settlement(&taken[0], owned.token - 1, b"x".to_vec());
    assert_eq!(consumer.settle(forged).await, Err(ErrorKind::Stale));
    assert_eq!(state("b").await, None);
    assert_eq!(
        consumer
            .settle(settlement(&taken[0], owned.token, b"one".to_vec()))
            .await,
        Ok(())
    );
    assert_eq!(state("b").await.as_deref(), Some(&b"one"[..]));
    assert_eq!(state("a").await, None);
    assert_eq!(
        publish(&transport, &topology, Some("k"), "a").await,
        Published::Duplicate
    );
    broker.lose_ownership(&topology.queue, 0);
    let late = settlement(&taken[1], owned.token, b"two".to_vec());
    assert_eq!(consumer.settle(late).await, Err(ErrorKind::Stale));
    assert_eq!(state("c").await.as_deref(), Some(&b"one"[..]));
    let owned = acquire(&*member, Claim::Partition(0))
        .await
        .expect("it is free");
    drop(consumer);
    let mut consumer = Consumer::of_partition(&transport, &topology, owned).await;
    let again = consumer.next().await;
    assert_eq!((&*again.envelope.id, again.standing), ("b", Standing::Held));
}
