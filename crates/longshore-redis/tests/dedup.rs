//! Dedup windows: what publishing knows, what settling makes of it, and that nothing is half done.
#![allow(clippy::unwrap_used)]

mod server;

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Declare, Delivery, Destination, ErrorKind, MarkChange, MarkWrite, Outgoing, Part, Published,
    Reason, Settlement, Standing, StateWrite, Subscription, Topology, Transport, Verdict,
    mark_name,
};
use server::{
    Consumer, Server, body,
    member::{Owner, sessions},
    message, queue, subscription,
};

const LOCK: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(60);
const PARTITION: Part = Part::Partition { index: 0, of: 1 };

fn once(id: &str) -> Outgoing {
    let mut outgoing = message("q", id);
    outgoing.envelope.id = id.into();
    outgoing.dedup_window = Some(WINDOW);
    outgoing
}

async fn publish(transport: &Arc<dyn Transport>, outgoing: Outgoing) -> Published {
    let answer = transport.publish(vec![outgoing]).await.pop().unwrap();
    answer.unwrap()
}

async fn consumer(transport: &Arc<dyn Transport>) -> Consumer {
    let mut topology = Topology::new(queue("q"));
    topology.dedup_window = Some(WINDOW);
    let subscription = Subscription {
        topology: Arc::new(topology),
        ..subscription("q", 64, LOCK)
    };
    Consumer::new(transport, subscription).await
}

fn done(window: Duration) -> MarkChange {
    MarkChange::Done {
        window,
        reply: None,
    }
}

fn settlement(delivery: Delivery, verdict: Verdict, change: MarkChange) -> Settlement {
    let name = mark_name(delivery.envelope.key.as_deref(), &delivery.envelope.id);
    let mut settlement = Settlement::new(
        delivery.receipt,
        delivery.attempt,
        verdict,
        delivery.envelope,
    );
    settlement.mark = Some(MarkWrite {
        name,
        owner: "".into(),
        change,
    });
    settlement
}

async fn settle(consumer: &Consumer, settlement: Settlement) {
    let answers = consumer.settler.settle(vec![settlement]).await;
    answers.into_iter().next().unwrap().unwrap();
}

fn dead() -> Verdict {
    Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    }
}

fn mark(server: &Server, id: &str) -> Option<String> {
    server.query(&format!("GET ls:{{q}}:dedup:{id}"))
}

fn length(server: &Server) -> u64 {
    server.query("XLEN ls:{q}:stream")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_stored_once_until_its_window_has_passed() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    assert_eq!(publish(&transport, once("a")).await, Published::Accepted);
    assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    let first = consumer.one().await;
    assert_eq!((first.attempt, first.standing), (1, Standing::Held));
    assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    let window = Duration::from_millis(700);
    let completed = tokio::time::Instant::now();
    settle(
        &consumer,
        settlement(first, Verdict::Complete, done(window)),
    )
    .await;
    assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    assert_eq!(length(&server), 0);
    while publish(&transport, once("a")).await == Published::Duplicate {
        assert!(completed.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(completed.elapsed() >= window);
    assert_eq!(consumer.one().await.standing, Standing::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_publishers_at_once_one_is_stored() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let _consumer = consumer(&transport).await;
    let mut publishers = Vec::new();
    for _ in 0..8 {
        let transport = server.connect().await;
        publishers.push(tokio::spawn(async move {
            let batch = (0..200).map(|n| once(&n.to_string())).collect();
            let answers = transport.publish(batch).await;
            answers
                .into_iter()
                .filter(|a| *a.as_ref().unwrap() == Published::Accepted)
                .count()
        }));
    }
    let mut accepted = 0;
    for publisher in publishers {
        accepted += publisher.await.unwrap();
    }
    assert_eq!((accepted, length(&server)), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_its_order_where_the_server_has_lost_its_scripts() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    for round in 0..3 {
        server.query::<String>("SCRIPT FLUSH");
        let ids: Vec<String> = (0..50).map(|n| format!("{round}-{n}")).collect();
        let batch = ids.iter().map(|id| once(id)).collect();
        for answer in transport.publish(batch).await {
            assert_eq!(answer.unwrap(), Published::Accepted);
        }
        let got = consumer.receive(50).await;
        assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ids);
        assert!(consumer.complete(got).await.iter().all(Result::is_ok));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_holds_its_id_while_it_waits_and_after() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    let mut later = once("a");
    later.delay = Duration::from_millis(400);
    assert_eq!(
        publish(&transport, later.clone()).await,
        Published::Accepted
    );
    assert_eq!(publish(&transport, later).await, Published::Duplicate);
    assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    let delivery = consumer.one().await;
    assert_eq!((delivery.attempt, delivery.standing), (1, Standing::Held));
    assert_eq!(length(&server), 1);
    assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_release_keep_the_id_and_a_dead_letter_gives_it_up() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    publish(&transport, once("a")).await;
    let held = mark(&server, "a").unwrap();
    for after in [Duration::ZERO, Duration::from_millis(50)] {
        let delivery = consumer.one().await;
        let waiting = MarkChange::Waiting {
            attempt: delivery.attempt + 1,
            at_most: Duration::from_secs(9),
        };
        settle(
            &consumer,
            settlement(delivery, Verdict::Retry { after }, waiting),
        )
        .await;
        let delivery = consumer.one().await;
        assert_eq!(delivery.standing, Standing::Held);
        consumer
            .settle(delivery, Verdict::Release { after })
            .await
            .unwrap();
        assert_eq!(mark(&server, "a").unwrap(), held);
        // A wait makes the hold no shorter.
        assert!(server.query::<i64>("PTTL ls:{q}:dedup:a") > 1_000_000_000);
        assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    }
    let delivery = consumer.one().await;
    assert_eq!((delivery.attempt, delivery.standing), (3, Standing::Held));
    settle(
        &consumer,
        settlement(delivery, dead(), MarkChange::Released),
    )
    .await;
    assert_eq!(mark(&server, "a"), None);
    assert_eq!(publish(&transport, once("a")).await, Published::Accepted);
    let second = consumer.one().await;

    // What is sent back is outside the window, however often.
    let admin = transport.admin();
    for _ in 0..2 {
        let letters = admin.dead_letters(&queue("q"), None, 10).await.unwrap();
        let sent = admin.redrive(&queue("q"), &[letters[0].id.clone()]).await;
        assert!(sent[0].is_ok());
        let back = consumer.one().await;
        assert_eq!((back.attempt, back.standing), (1, Standing::Exempt));
        assert!(back.envelope.headers.is_empty());
        // It cannot give up what the other holds.
        settle(&consumer, settlement(back, dead(), MarkChange::Released)).await;
        assert_eq!(publish(&transport, once("a")).await, Published::Duplicate);
    }
    settle(
        &consumer,
        settlement(second, Verdict::Complete, done(WINDOW)),
    )
    .await;
    assert_eq!(mark(&server, "a").as_deref(), Some("d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_hold_takes_nothing_from_the_message_that_has_it() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    publish(&transport, once("a")).await;
    let real = consumer.one().await;
    for forged in ["", "1", "0000000000000000"] {
        let mut add = redis::cmd("XADD");
        add.arg("ls:{q}:stream").arg("*").arg("body").arg("x");
        add.arg("id").arg("a").arg("dedup").arg(forged);
        server.try_query::<String>(&add).unwrap();
        for verdict in [
            Verdict::Release {
                after: Duration::ZERO,
            },
            Verdict::Retry {
                after: Duration::ZERO,
            },
            dead(),
        ] {
            let delivery = consumer.one().await;
            assert_eq!(delivery.standing, Standing::Held);
            settle(
                &consumer,
                settlement(delivery, verdict, MarkChange::Released),
            )
            .await;
            assert!(mark(&server, "a").unwrap().starts_with('h'));
        }
    }
    settle(&consumer, settlement(real, dead(), MarkChange::Released)).await;
    assert_eq!(mark(&server, "a"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_told_apart_by_their_keys_and_missing_ones_are_not_taken() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let _consumer = consumer(&transport).await;
    for key in ["k", "l"] {
        let mut outgoing = once("a");
        outgoing.envelope.key = Some(key.into());
        assert_eq!(
            publish(&transport, outgoing.clone()).await,
            Published::Accepted
        );
        assert_eq!(publish(&transport, outgoing).await, Published::Duplicate);
    }
    for _ in 0..2 {
        assert_eq!(publish(&transport, once("")).await, Published::Accepted);
    }
    assert_eq!(length(&server), 4);
    let mut nowhere = once("a");
    nowhere.to = Destination::Queue(queue("nowhere"), Part::Lane(0));
    let refused = transport.publish(vec![nowhere]).await.pop().unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSuchQueue);
    assert_eq!(server.query::<Vec<String>>("KEYS ls:{nowhere}*").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_queue_of_a_topic_takes_the_id_for_itself() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    for (name, window) in [
        ("q", Some(WINDOW)),
        ("other", Some(WINDOW)),
        ("plain", None),
    ] {
        let mut topology = Topology::new(queue(name));
        topology.topics = vec![queue("t")];
        topology.dedup_window = window;
        let declared = transport.declare(&topology, Declare::Create).await;
        declared.unwrap();
    }
    let lengths =
        || ["q", "other", "plain"].map(|q| server.query::<u64>(&format!("XLEN ls:{{{q}}}:stream")));
    let mut to_topic = once("a");
    to_topic.to = Destination::Topic(queue("t"));
    to_topic.dedup_window = None;
    server.query::<String>("SCRIPT FLUSH");
    assert_eq!(
        publish(&transport, to_topic.clone()).await,
        Published::Accepted
    );
    assert_eq!(lengths(), [1, 1, 1]);
    // One that was missed, as after a failure on a cluster, is completed; no other gets a second.
    server.query::<u64>("XTRIM ls:{other}:stream MAXLEN 0");
    server.query::<u64>("DEL ls:{other}:dedup:a");
    server.query::<u64>("SREM ls:topic:{t} plain");
    assert_eq!(
        publish(&transport, to_topic.clone()).await,
        Published::Accepted
    );
    assert_eq!(lengths(), [1, 1, 1]);
    assert_eq!(
        publish(&transport, to_topic.clone()).await,
        Published::Duplicate
    );
    to_topic.delay = Duration::from_secs(60);
    assert_eq!(
        publish(&transport, to_topic.clone()).await,
        Published::Duplicate
    );
    // A queue that is declared without a window takes ids no more.
    let mut without = Topology::new(queue("other"));
    without.topics = vec![queue("t")];
    transport.declare(&without, Declare::Create).await.unwrap();
    to_topic.delay = Duration::ZERO;
    assert_eq!(publish(&transport, to_topic).await, Published::Accepted);
    assert_eq!(lengths(), [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_takes_no_id_and_settles_every_mark() {
    let server = Server::start(&["maxmemory-policy noeviction"]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    for id in ["complete", "retry", "later", "dead", "release"] {
        publish(&transport, once(id)).await;
    }
    let mut held = consumer.receive(5).await.into_iter();
    server.query::<String>("CONFIG SET maxmemory 1");
    let mut later = once("new");
    later.delay = Duration::from_secs(1);
    for outgoing in [once("new"), later] {
        let refused = transport.publish(vec![outgoing]).await.pop().unwrap();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    }
    assert_eq!(mark(&server, "new"), None);
    let waiting = || MarkChange::Waiting {
        attempt: 2,
        at_most: WINDOW,
    };
    let mut next = || held.next().unwrap();
    settle(
        &consumer,
        settlement(next(), Verdict::Complete, done(WINDOW)),
    )
    .await;
    for after in [Duration::ZERO, Duration::from_millis(50)] {
        settle(
            &consumer,
            settlement(next(), Verdict::Retry { after }, waiting()),
        )
        .await;
    }
    settle(&consumer, settlement(next(), dead(), MarkChange::Released)).await;
    let after = Duration::ZERO;
    settle(
        &consumer,
        settlement(next(), Verdict::Release { after }, MarkChange::Released),
    )
    .await;
    let known = ["complete", "retry", "later", "dead", "release"].map(|id| mark(&server, id));
    assert_eq!(known[0].as_deref(), Some("d"));
    assert!(known[1].is_some() && known[2].is_some());
    assert_eq!((&known[3], &known[4]), (&None, &None));
    assert_eq!(consumer.receive(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_survive_the_death_of_a_durable_server() {
    let mut server = Server::start(&["appendfsync always"]).await;
    let transport = server.connect().await;
    let mut consumer = consumer(&transport).await;
    for id in ["a", "b"] {
        publish(&transport, once(id)).await;
    }
    let first = consumer.one().await;
    settle(
        &consumer,
        settlement(first, Verdict::Complete, done(WINDOW)),
    )
    .await;
    server.broker.kill().await.unwrap();
    server.broker.start_again().await.unwrap();
    for id in ["a", "b"] {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            match transport.publish(vec![once(id)]).await.pop().unwrap() {
                Ok(answer) => break assert_eq!(answer, Published::Duplicate),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_window_is_stored_and_completed_without_a_script() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 64, LOCK)).await;
    let scripts = || {
        let stats: String = server.query("INFO commandstats");
        stats
            .lines()
            .filter(|line| line.starts_with("cmdstat_eval"))
            .map(|line| line.split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = scripts();
    server::publish(&transport, "q", (0..50).map(|n| n.to_string())).await;
    let got = consumer.receive(50).await;
    assert!(got.iter().all(|d| d.standing == Standing::Unknown));
    assert!(consumer.complete(got).await.iter().all(Result::is_ok));
    assert_eq!(length(&server), 0);
    // The promoter and the search for suspects use some now and then; fifty would be seen.
    let calls = |stats: Vec<String>| -> u64 {
        let numbers = stats
            .iter()
            .filter_map(|line| line.split("calls=").nth(1)?.parse::<u64>().ok());
        numbers.sum()
    };
    assert!(calls(scripts()) - calls(before) < 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_settles_marks_in_its_own_scope_with_state_and_outcome() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut topology = sessions("q", 1);
    Arc::make_mut(&mut topology).dedup_window = Some(WINDOW);
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let to = |id: &str| {
        let mut outgoing = once(id);
        outgoing.envelope.key = Some("k".into());
        outgoing.to = Destination::Queue(queue("q"), PARTITION);
        outgoing
    };
    let mark = |id: &str| {
        let mut get = redis::cmd("GET");
        get.arg(format!("ls:{{q.s1.0}}:dedup:{}", mark_name(Some("k"), id)));
        server.try_query::<Option<String>>(&get).unwrap()
    };
    for id in ["done", "dead", "back"] {
        assert_eq!(publish(&transport, to(id)).await, Published::Accepted);
        assert_eq!(publish(&transport, to(id)).await, Published::Duplicate);
    }
    let mut held = owner.consumer.receive(3).await.into_iter();
    assert!(held.as_slice().iter().all(|d| d.standing == Standing::Held));
    let mut complete = settlement(held.next().unwrap(), Verdict::Complete, done(WINDOW));
    complete.state = Some(StateWrite {
        key: "k".into(),
        message: "done".into(),
        token: owner.ownership.token,
        value: Some("s".into()),
    });
    let released = |delivery, verdict| settlement(delivery, verdict, MarkChange::Released);
    let after = Duration::ZERO;
    let batch = vec![
        complete,
        released(held.next().unwrap(), dead()),
        released(held.next().unwrap(), Verdict::Release { after }),
    ];
    for answer in owner.consumer.settler.settle(batch).await {
        answer.unwrap();
    }
    assert_eq!(mark("done").as_deref(), Some("d"));
    assert_eq!((mark("dead"), mark("back")), (None, None));
    let store = transport.store().unwrap();
    let scope = topology.scope(PARTITION);
    let seen = store.load(&scope, &"k".into(), &"next".into()).await;
    assert_eq!(seen.unwrap().state.as_deref(), Some(&b"s"[..]));
    assert_eq!(publish(&transport, to("done")).await, Published::Duplicate);
    assert_eq!(publish(&transport, to("dead")).await, Published::Accepted);
}
