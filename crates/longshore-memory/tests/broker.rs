//! What only a broker in the same process can show.

use std::{sync::Arc, task::Poll, time::Duration};

use futures_util::future::poll_fn;
use longshore_core::{
    ConnectOptions, Declare, Delivery, Destination, Envelope, ErrorKind, Limits, Name, Outgoing,
    Part, Receipt, Settlement, Settler, Source, Subscription, Topology, Transport, Verdict,
};
use longshore_memory::MemoryBroker;

fn topology() -> Topology {
    Topology::new(Name::new("orders").expect("a name"))
}

fn outgoing(body: &'static str, delay: Duration) -> Outgoing {
    let mut envelope = Envelope::new("order.placed", body);
    envelope.id = body.into();
    Outgoing {
        to: Destination::Queue(topology().queue, Part::Lane(0)),
        envelope,
        delay,
        dedup_window: None,
    }
}

async fn publish(transport: &Arc<dyn Transport>, body: &'static str, delay: Duration) {
    let answers = transport.publish(vec![outgoing(body, delay)]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

async fn subscribe(transport: &Arc<dyn Transport>) -> (Box<dyn Source>, Arc<dyn Settler>) {
    let subscription = Subscription {
        topology: Arc::new(topology()),
        declare: Declare::Create,
        part: Part::Lane(0),
        ownership: None,
        prefetch: 64,
        lock: Duration::from_secs(30),
        suspect_returns: 2,
        limits: Limits::default(),
    };
    transport.subscribe(subscription).await.expect("subscribes")
}

async fn receive(source: &mut Box<dyn Source>) -> Vec<Delivery> {
    let mut into = Vec::new();
    poll_fn(|cx| source.poll_receive(cx, 64, &mut into))
        .await
        .expect("receives");
    into
}

async fn is_quiet(source: &mut Box<dyn Source>) -> bool {
    poll_fn(|cx| Poll::Ready(source.poll_receive(cx, 64, &mut Vec::new()).is_pending())).await
}

#[tokio::test(start_paused = true)]
async fn a_delay_ends_to_the_millisecond_of_the_brokers_clock() {
    let transport = MemoryBroker::new(&ConnectOptions::default()).open();
    let (mut source, _settler) = subscribe(&transport).await;
    publish(&transport, "late", Duration::from_secs(3600)).await;
    publish(&transport, "soon", Duration::from_millis(50)).await;
    let start = tokio::time::Instant::now();
    let soon = receive(&mut source).await;
    assert_eq!(
        soon.first().map(|d| &d.envelope.body[..]),
        Some(&b"soon"[..])
    );
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_millis(50) && waited <= Duration::from_millis(52),
        "{waited:?}"
    );
    receive(&mut source).await;
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_secs(3600) && waited <= Duration::from_secs(3601),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_full_queue_refuses_until_something_is_done() {
    let transport = MemoryBroker::with_capacity(&ConnectOptions::default(), 2).open();
    let (mut source, settler) = subscribe(&transport).await;
    publish(&transport, "a", Duration::ZERO).await;
    publish(&transport, "b", Duration::from_secs(60)).await;
    let answers = transport.publish(vec![outgoing("c", Duration::ZERO)]).await;
    let kinds: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().map_err(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [Err(ErrorKind::Full)]);
    let taken = receive(&mut source).await;
    let done = taken
        .iter()
        .map(|d| Settlement::complete(d.receipt, d.attempt));
    assert!(
        settler
            .settle(done.collect())
            .await
            .iter()
            .all(Result::is_ok)
    );
    publish(&transport, "c", Duration::ZERO).await;
}

#[tokio::test]
async fn lost_locks_are_reported_once_and_their_settlements_are_stale() {
    let broker = MemoryBroker::new(&ConnectOptions::default());
    let transport = broker.open();
    let (mut source, settler) = subscribe(&transport).await;
    publish(&transport, "a", Duration::ZERO).await;
    let taken = receive(&mut source).await;
    broker.lose_locks();
    let mut lost: Vec<Receipt> = Vec::new();
    poll_fn(|cx| source.poll_lost(cx, &mut lost)).await;
    assert_eq!(lost, [taken[0].receipt]);
    let again = poll_fn(|cx| Poll::Ready(source.poll_lost(cx, &mut lost))).await;
    assert!(again.is_pending());
    let late = settler.settle(vec![Settlement::complete(lost[0], 1)]).await;
    assert!(
        matches!(&late[..], [Err(u)] if u.error.kind() == ErrorKind::Stale && u.settlement.is_none())
    );
    assert_eq!(receive(&mut source).await[0].attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_release_with_a_delay_comes_back_then_at_no_cost_of_attempts() {
    let transport = MemoryBroker::new(&ConnectOptions::default()).open();
    let (mut source, settler) = subscribe(&transport).await;
    publish(&transport, "a", Duration::ZERO).await;
    for _ in 0..3 {
        let taken = receive(&mut source).await.remove(0);
        assert_eq!((taken.attempt, taken.suspect), (1, false));
        let after = Duration::from_secs(5);
        let release = Verdict::Release { after };
        let settlement = Settlement::new(taken.receipt, 1, release, taken.envelope);
        let answers = settler.settle(vec![settlement]).await;
        assert!(answers.iter().all(Result::is_ok));
        let start = tokio::time::Instant::now();
        assert!(is_quiet(&mut source).await);
        let again = receive(&mut source).await.remove(0);
        assert!(start.elapsed() >= after, "{:?}", start.elapsed());
        let release = Verdict::Release {
            after: Duration::ZERO,
        };
        let settlement = Settlement::new(again.receipt, 1, release, again.envelope);
        settler.settle(vec![settlement]).await;
    }
}

#[tokio::test]
async fn suspects_come_alone_and_count_only_once_their_start_is_noted() {
    let transport = MemoryBroker::new(&ConnectOptions::default()).open();
    for body in ["a", "b"] {
        subscribe(&transport).await;
        publish(&transport, body, Duration::ZERO).await;
    }
    let (mut source, _settler) = subscribe(&transport).await;
    let taken = receive(&mut source).await;
    assert!(taken.len() == 2 && taken.iter().all(|d| d.attempt == 1 && !d.suspect));
    drop(source);
    // What came back once pays no more for what it only waits beside.
    for waits in [true, true, false] {
        let (mut source, settler) = subscribe(&transport).await;
        let taken = receive(&mut source).await;
        assert!(taken.len() == 2 && taken.iter().all(|d| d.attempt == 2 && d.suspect));
        if !waits {
            let starts: Vec<_> = taken.iter().map(|d| (d.receipt, d.attempt)).collect();
            let noted = settler.start(&starts).await;
            assert!(noted.iter().all(Result::is_ok));
        }
    }
    for _ in 0..3 {
        let (mut source, _settler) = subscribe(&transport).await;
        let taken = receive(&mut source).await;
        assert!(
            taken.len() == 1 && taken[0].suspect && taken[0].attempt == 3,
            "{taken:?}"
        );
        assert!(is_quiet(&mut source).await);
    }
    let (mut source, settler) = subscribe(&transport).await;
    let first = receive(&mut source).await.remove(0);
    assert!(
        settler
            .start(&[(first.receipt, first.attempt)])
            .await
            .iter()
            .all(Result::is_ok)
    );
    let set_aside = Verdict::DeadLetter {
        reason: longshore_core::Reason::Crashed,
        detail: String::new(),
    };
    let settlement = Settlement::new(first.receipt, 3, set_aside, first.envelope);
    assert!(
        settler
            .settle(vec![settlement])
            .await
            .iter()
            .all(Result::is_ok)
    );
    let second = receive(&mut source).await.remove(0);
    assert!(second.suspect && second.envelope.body != "a");
    assert!(
        settler
            .start(&[(second.receipt, second.attempt)])
            .await
            .iter()
            .all(Result::is_ok)
    );
    drop(source);
    let (mut source, _settler) = subscribe(&transport).await;
    assert_eq!(receive(&mut source).await[0].attempt, 4);
}
