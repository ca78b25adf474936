//! Partitions: in which order they come, and what their next owner finds.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use longshore_core::{Delivery, ErrorKind, Reason, Settlement, StateWrite, Verdict};
use server::{
    Server, body,
    member::{Owner, P0, keyed, publish_keyed, sessions},
    message,
};

const LOCK: Duration = Duration::from_secs(2);
const RELEASE: Verdict = Verdict::Release {
    after: Duration::ZERO,
};

fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

/// Body, attempt, suspect, alone.
fn row(delivery: &Delivery) -> (String, u32, bool, bool) {
    (
        body(delivery),
        delivery.attempt,
        delivery.suspect,
        delivery.alone,
    )
}

fn is(body: &str, attempt: u32, suspect: bool, alone: bool) -> (String, u32, bool, bool) {
    (body.to_owned(), attempt, suspect, alone)
}

#[tokio::test(flavor = "multi_thread")]
async fn order_survives_the_death_of_owners() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 32)).await;
    let mut held = owner.consumer.receive(32).await;
    assert_eq!(row(&held[0]), is("0", 1, false, false));
    let done = vec![held.remove(0), held.remove(1)];
    assert_eq!(bodies(&done), ["0", "2"]);
    assert!(
        owner
            .consumer
            .complete(done)
            .await
            .iter()
            .all(Result::is_ok)
    );
    owner.starts(&held[1], 2).await.unwrap();
    drop(owner);
    publish_keyed(&transport, &topology, "k", numbers(32, 40)).await;

    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let held = owner.consumer.receive(32).await;
    let expected = [vec!["1".to_owned()], numbers(3, 34)].concat();
    assert_eq!(bodies(&held), expected);
    assert_eq!(
        row(&held[0]),
        is("1", 2, true, false),
        "delivered, not noted"
    );
    assert_eq!(row(&held[1]), is("3", 3, true, false), "two starts");
    assert_eq!(row(&held[30]), is("32", 1, false, false), "new");
    let more = owner.consumer.receive_within(1, Duration::from_millis(300));
    assert_eq!(more.await.len(), 0, "the window is 32");
    drop(owner);

    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let held = owner.consumer.receive(32).await;
    assert_eq!(bodies(&held), expected);
    assert_eq!(row(&held[0]), is("1", 2, true, true), "it came back twice");
    assert_eq!(row(&held[1]), is("3", 3, true, true));
    assert_eq!(
        row(&held[30]),
        is("32", 2, true, false),
        "it came back once"
    );
    assert!(
        owner
            .consumer
            .complete(held)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(bodies(&owner.consumer.receive(6).await), numbers(34, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_hand_over_keeps_places_and_costs_no_attempt() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 6)).await;
    let mut held = owner.consumer.receive(4).await;
    for number in [2, 3] {
        owner.starts(&held[0], number).await.unwrap();
    }
    owner.consumer.source.stop();
    // Backwards: places do not follow from the order of settlements.
    held.extend(
        owner
            .consumer
            .receive_within(2, Duration::from_secs(1))
            .await,
    );
    while let Some(delivery) = held.pop() {
        let verdict = if body(&delivery) == "2" {
            Verdict::Complete
        } else {
            RELEASE
        };
        let next = if body(&delivery) == "0" { 4 } else { 1 };
        let settlement = Settlement::new(delivery.receipt, next, verdict, delivery.envelope);
        assert!(owner.consumer.settler.settle(vec![settlement]).await[0].is_ok());
    }
    let before = owner.ownership;
    let member = owner.release().await;
    let ownership = member.try_own(P0).await.expect("it is free at once");
    assert!(ownership.token > before.token);
    let mut owner = member.consuming(ownership).await;
    let held = owner.consumer.receive(5).await;
    assert_eq!(row(&held[0]), is("0", 4, false, false));
    for (delivery, body) in held[1..].iter().zip(["1", "3", "4", "5"]) {
        assert_eq!(row(delivery), is(body, 1, false, false));
    }
    // The next life does not mistake it for never noted.
    owner.starts(&held[0], 4).await.unwrap();
    drop(owner);
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let held = owner.consumer.receive(5).await;
    assert_eq!(row(&held[0]), is("0", 5, true, false));
    assert_eq!(row(&held[1]), is("1", 2, true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_back_stays_away_while_its_source_is_open() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 2)).await;
    let mut held = owner.consumer.receive(2).await;
    owner
        .consumer
        .settle(held.remove(0), RELEASE)
        .await
        .unwrap();
    // A new connection looks at the whole pending list again.
    server.query::<i64>("CLIENT KILL TYPE normal SKIPME yes");
    server.query::<String>("XADD ls:{q.s1.0}:stream * type test body 2");
    assert_eq!(bodies(&owner.consumer.receive(1).await), ["2"]);
    let more = owner.consumer.receive_within(1, Duration::from_secs(1));
    assert_eq!(more.await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_read_by_a_read_that_was_never_answered_come_in_their_place() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 1)).await;
    owner.consumer.receive(1).await;
    // As a late read of the same owner would.
    let consumers: Vec<Vec<redis::Value>> =
        server.query("XINFO CONSUMERS ls:{q.s1.0}:stream longshore");
    let redis::Value::BulkString(name) = &consumers[0][1] else {
        panic!("{consumers:?}");
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let mut both = redis::pipe();
    both.atomic();
    for n in [1, 2] {
        both.cmd("XADD").arg("ls:{q.s1.0}:stream").arg("*");
        both.arg("type").arg("t").arg("body").arg(n).ignore();
    }
    both.cmd("XREADGROUP")
        .arg("GROUP")
        .arg("longshore")
        .arg(&name);
    both.arg("COUNT")
        .arg(1)
        .arg("STREAMS")
        .arg("ls:{q.s1.0}:stream")
        .arg(">")
        .ignore();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    both.query::<()>(&mut connection).unwrap();
    let held = owner.consumer.receive(2).await;
    assert_eq!(row(&held[0]), is("1", 1, false, false));
    assert_eq!(row(&held[1]), is("2", 1, false, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_written_with_the_outcome_and_seen_again_only_by_another_message() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 3)).await;
    let state = |message: &str, token: u64, value: Option<&str>| StateWrite {
        key: "k".into(),
        message: message.into(),
        token,
        value: value.map(|value| value.to_owned().into()),
    };
    let token = owner.ownership.token;
    let hash = |field: &str| {
        server.query::<Option<String>>(&format!("HGET ls:{{q.s1.0}}:state:k {field}"))
    };
    for (message, value) in [("a", Some("1")), ("b", Some("2"))] {
        let delivery = owner.consumer.one().await;
        let mut settlement = Settlement::complete(delivery.receipt, 1);
        settlement.state = Some(state(message, token, value));
        assert!(owner.consumer.settler.settle(vec![settlement]).await[0].is_ok());
    }
    assert_eq!(hash("now").as_deref(), Some("2"));
    assert_eq!(hash("before").as_deref(), Some("1"));
    assert_eq!(hash("message").as_deref(), Some("b"));
    let delivery = owner.consumer.one().await;
    let mut settlement = Settlement::complete(delivery.receipt, 1);
    settlement.state = Some(state("c", token - 1, None));
    let refused = owner
        .consumer
        .settler
        .settle(vec![settlement])
        .await
        .pop()
        .unwrap();
    assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::Stale);
    assert_eq!(
        hash("message").as_deref(),
        Some("b"),
        "a smaller token changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_frozen_changes_nothing() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 3)).await;
    let mut held = owner.consumer.receive(3).await;
    // The server gives the lease up while the owner still believes in it: it is frozen, or slow.
    server.query::<i64>("DEL ls:{q.s1.0}:lease");
    let other = server.connect().await;
    let mut next = Owner::of(&other, &topology, LOCK).await;
    assert!(next.ownership.token > owner.ownership.token);
    let delivery = held.remove(0);
    let mut settlement = Settlement::complete(delivery.receipt, 1);
    settlement.state = Some(StateWrite {
        key: "k".into(),
        message: "m".into(),
        token: owner.ownership.token,
        value: Some("stale".into()),
    });
    let refused = owner
        .consumer
        .settler
        .settle(vec![settlement])
        .await
        .pop()
        .unwrap();
    assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::Stale);
    assert!(!server.query::<bool>("EXISTS ls:{q.s1.0}:state:k"));
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    for verdict in [dead, RELEASE] {
        let refused = owner.consumer.settle(held.remove(0), verdict).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Stale);
    }
    assert_eq!(server.query::<u64>("XLEN ls:{q.s1.0}:dead"), 0);
    let lost = owner.member.lost_within(Duration::from_secs(5)).await;
    assert_eq!(lost, Some(owner.ownership));
    let held = next.consumer.receive(3).await;
    assert_eq!(bodies(&held), numbers(0, 3));
    assert!(next.consumer.complete(held).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_partition_go_back_to_it() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 4);
    let transport = server.connect().await;
    let member = server::member::Member::join(&transport, &topology, LOCK).await;
    let mut owners = Vec::new();
    for index in 0..4 {
        let ownership = member.own(longshore_core::Claim::Partition(index)).await;
        owners.push(member.consume(ownership).await);
    }
    let keys = ["a", "b", "c", "d", "e", "f"];
    let batch = keys.map(|key| keyed(&topology, key, key)).to_vec();
    assert!(transport.publish(batch).await.iter().all(Result::is_ok));
    let mut count = 0;
    for consumer in &mut owners {
        for delivery in consumer.receive_within(6, Duration::from_secs(1)).await {
            count += 1;
            let dead = Verdict::DeadLetter {
                reason: Reason::Permanent,
                detail: "d".into(),
            };
            consumer.settle(delivery, dead).await.unwrap();
        }
    }
    assert_eq!(count, 6);
    let admin = transport.admin();
    assert_eq!(admin.stats(&topology.queue).await.unwrap().dead, 6);
    let mut letters = Vec::new();
    let mut after = None;
    loop {
        let page = admin
            .dead_letters(&topology.queue, after.as_ref(), 2)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        letters.extend(page);
    }
    let mut found: Vec<_> = letters
        .iter()
        .map(|l| l.envelope.key.clone().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, keys.map(longshore_core::Text::from));
    let (back, away) = letters.split_at(4);
    let ids: Vec<_> = back.iter().map(|letter| letter.id.clone()).collect();
    assert!(
        admin
            .redrive(&topology.queue, &ids)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let ids: Vec<_> = away.iter().map(|letter| letter.id.clone()).collect();
    assert!(
        admin
            .discard(&topology.queue, &ids)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let mut returned = 0;
    for (index, consumer) in owners.iter_mut().enumerate() {
        for delivery in consumer.receive_within(6, Duration::from_secs(1)).await {
            let key = delivery.envelope.key.clone().unwrap();
            assert_eq!(longshore_core::partition_of(&key, 4), index as u16);
            assert_eq!(delivery.standing, longshore_core::Standing::Exempt);
            returned += 1;
        }
    }
    assert_eq!(returned, 4);
    assert_eq!(admin.stats(&topology.queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_messages_come_when_the_partition_is_owned() {
    let server = Server::start(&[]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let mut late = keyed(&topology, "k", "late");
    late.delay = Duration::from_millis(400);
    let sent = std::time::Instant::now();
    assert!(transport.publish(vec![late]).await[0].is_ok());
    assert_eq!(bodies(&owner.consumer.receive(1).await), ["late"]);
    let took = sent.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_millis(1400),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_lets_owners_change_and_settle_and_refuses_publishers() {
    let server = Server::start(&["maxmemory 100mb", "maxmemory-policy noeviction"]).await;
    let topology = sessions("q", 1);
    let transport = server.connect().await;
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    publish_keyed(&transport, &topology, "k", numbers(0, 4)).await;
    owner.consumer.receive(4).await;
    drop(owner);
    server.query::<String>("CONFIG SET maxmemory 1");
    let mut owner = Owner::of(&transport, &topology, LOCK).await;
    let mut held = owner.consumer.receive(4).await;
    owner.starts(&held[0], 2).await.unwrap();
    let full = transport
        .publish(vec![keyed(&topology, "k", "x")])
        .await
        .pop()
        .unwrap();
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    owner.consumer.settle(held.remove(0), dead).await.unwrap();
    let delivery = held.remove(0);
    let mut settlement = Settlement::complete(delivery.receipt, 2);
    settlement.state = Some(StateWrite {
        key: "k".into(),
        message: "m".into(),
        token: owner.ownership.token,
        value: Some("s".into()),
    });
    assert!(owner.consumer.settler.settle(vec![settlement]).await[0].is_ok());
    assert!(
        owner
            .consumer
            .complete(held)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(server.query::<u64>("XLEN ls:{q.s1.0}:dead"), 1);
    assert!(server.query::<bool>("EXISTS ls:{q.s1.0}:state:k"));
    assert_eq!(server.query::<u64>("XLEN ls:{q.s1.0}:stream"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_reaches_the_partition_of_the_key() {
    let server = Server::start(&[]).await;
    let mut topology = (*sessions("q", 4)).clone();
    topology.topics = vec![server::queue("t")];
    let transport = server.connect().await;
    let declare = longshore_core::Declare::Create;
    transport.declare(&topology, declare).await.unwrap();
    for key in [Some("a"), Some("b"), None] {
        let mut outgoing = message("unused", "x");
        outgoing.to = longshore_core::Destination::Topic(server::queue("t"));
        outgoing.envelope.key = key.map(Into::into);
        assert!(transport.publish(vec![outgoing]).await[0].is_ok());
    }
    for key in ["a", "b"] {
        let index = longshore_core::partition_of(&key.into(), 4);
        assert_eq!(
            server.query::<u64>(&format!("XLEN ls:{{q.s4.{index}}}:stream")),
            1
        );
    }
    assert_eq!(
        server.query::<u64>("XLEN ls:{q}:stream"),
        1,
        "without a key"
    );
}
