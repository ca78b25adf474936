//! Dead letters are complete: field by field, whatever the fields.
#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use longshore_core::{Reason, Verdict};
use server::{Consumer, Server, queue, subscription};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const LOCK: Duration = Duration::from_secs(30);

fn add(server: &Server, fields: &Fields) {
    let mut command = redis::cmd("XADD");
    command.arg("ls:{q}:stream").arg("*");
    for (name, value) in fields {
        command.arg(&name[..]).arg(&value[..]);
    }
    let _: String = server.try_query(&command).unwrap();
}

fn stored(server: &Server, key: &str) -> Fields {
    let entries: Vec<(String, Vec<Vec<u8>>)> = server.query(&format!("XRANGE {key} - +"));
    assert_eq!(entries.len(), 1);
    let flat = entries.into_iter().next().unwrap().1;
    flat.chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn field(name: &str, value: impl Into<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), value.into())
}

/// Set aside and sent back, an entry is byte for byte what it was, and says that it was sent back.
async fn round_trip(fields: Fields, defective: bool) {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    add(&server, &fields);
    let delivery = consumer.one().await;
    assert_eq!(
        delivery.defect.is_some(),
        defective,
        "{:?}",
        delivery.defect
    );
    let verdict = Verdict::DeadLetter {
        reason: Reason::Other("mine".into()),
        detail: "why".into(),
    };
    consumer.settle(delivery, verdict).await.unwrap();
    let dead = stored(&server, "ls:{q}:dead");
    // Behind ours in one field where there are too many.
    let packed = fields.len() > 1000;
    let (original, ours) = dead.split_at(if packed { 0 } else { dead.len() - 5 });
    if !packed {
        assert_eq!(original, fields);
    }
    let names: Vec<_> = ours
        .iter()
        .map(|(name, _)| String::from_utf8(name.clone()).unwrap())
        .collect();
    let mut expected = vec![
        "dead.reason",
        "dead.detail",
        "dead.attempts",
        "dead.queue",
        "dead.at",
    ];
    expected.extend(packed.then_some("dead.packed"));
    assert_eq!(names, expected);
    assert_eq!((&ours[0].1[..], &ours[3].1[..]), (&b"mine"[..], &b"q"[..]));

    let admin = transport.admin();
    let letters = admin.dead_letters(&queue("q"), None, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].redrivable), (1, true));
    let body = fields
        .iter()
        .find(|(name, _)| name == b"body")
        .map(|(_, value)| value.clone());
    assert_eq!(letters[0].envelope.body.to_vec(), body.unwrap_or_default());
    consumer.source.stop();
    drop(consumer);
    tokio::time::sleep(Duration::from_millis(600)).await;
    admin
        .redrive(&queue("q"), &[letters[0].id.clone()])
        .await
        .pop()
        .unwrap()
        .unwrap();
    let mut back = fields;
    back.push(field("redriven", "1"));
    assert_eq!(stored(&server, "ls:{q}:stream"), back);
    assert_eq!(server.query::<u64>("XLEN ls:{q}:dead"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_binary_fields_and_duplicates_survive() {
    let every_byte: Vec<u8> = (0..=255).collect();
    round_trip(
        vec![
            field("zebra", every_byte.clone()),
            field("type", "t"),
            (every_byte.clone(), b"".to_vec()),
            field("h.x", "1"),
            field("h.x", "2"),
            field("dead.reason", "forged"),
            field("body", every_byte),
            field("dead.at", "0"),
        ],
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_dead_letter_of_ours_is_what_its_publisher_wrote() {
    let packed = [0, 0, 0, 1, b'a', 0, 0, 0, 1, b'b'];
    let mut forged = vec![
        field("dead.reason", "forged"),
        field("dead.detail", ""),
        field("dead.attempts", "9"),
        field("dead.queue", "elsewhere"),
        field("dead.at", "1"),
    ];
    round_trip(forged.clone(), true).await;
    forged.push(field("dead.packed", packed));
    round_trip(forged, true).await;
    round_trip(vec![field("dead.packed", packed)], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_counts_nothing_survives() {
    round_trip(vec![field("attempt", "3")], true).await;
    let twice = ["attempt", "body", "attempt"].map(|name| field(name, "1"));
    round_trip(twice.to_vec(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_attempts_is_no_part_of_a_dead_letter() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 4, LOCK)).await;
    let message = vec![field("type", "t"), field("body", "x")];
    // A publisher's own stands anywhere, ours behind all others.
    let mut counted = message.clone();
    counted.insert(1, field("attempt", "3"));
    for (added, retried, attempts) in [
        (&counted, false, 4),
        (&counted, true, 5),
        (&message, true, 2),
    ] {
        add(&server, added);
        let mut delivery = consumer.one().await;
        if retried {
            let after = Duration::ZERO;
            consumer
                .settle(delivery, Verdict::Retry { after })
                .await
                .unwrap();
            delivery = consumer.one().await;
        }
        assert_eq!(delivery.attempt, attempts);
        let verdict = Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        };
        consumer.settle(delivery, verdict).await.unwrap();
        let dead = stored(&server, "ls:{q}:dead");
        assert_eq!(dead[..2], message);
        assert_eq!(dead[4], field("dead.attempts", attempts.to_string()));
        let admin = transport.admin();
        let letters = admin.dead_letters(&queue("q"), None, 10).await.unwrap();
        let ids = [letters[0].id.clone()];
        admin
            .redrive(&queue("q"), &ids)
            .await
            .pop()
            .unwrap()
            .unwrap();
        let back = consumer.one().await;
        assert_eq!(back.attempt, 1);
        assert!(consumer.complete(vec![back]).await[0].is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_fields_survive() {
    let mut fields: Fields = (0..4999)
        .map(|n| field(&format!("f{n}"), n.to_string()))
        .collect();
    fields.push(field("body", "last"));
    round_trip(fields, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_and_one_thousand_and_one_fields_survive() {
    for count in [999, 1000] {
        let mut fields: Fields = (0..count)
            .map(|n| field(&format!("f{n}"), n.to_string()))
            .collect();
        fields.push(field("body", "last"));
        round_trip(fields, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_not_kept_in_memory_and_survives() {
    round_trip(
        vec![field("type", "t"), field("body", vec![b'x'; 3 << 20])],
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_removes_for_ever_and_pages_follow_each_other() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 200, LOCK)).await;
    for n in 0..120 {
        add(&server, &vec![field("body", n.to_string())]);
    }
    for delivery in consumer.receive(120).await {
        let verdict = Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        };
        consumer.settle(delivery, verdict).await.unwrap();
    }
    let admin = transport.admin();
    let first = admin.dead_letters(&queue("q"), None, 70).await.unwrap();
    let rest = admin
        .dead_letters(&queue("q"), Some(&first[69].id), 70)
        .await
        .unwrap();
    assert_eq!((first.len(), rest.len()), (70, 50));
    let ids: Vec<_> = first
        .iter()
        .chain(&rest)
        .map(|letter| letter.id.clone())
        .collect();
    assert!(
        admin
            .discard(&queue("q"), &ids)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(admin.discard(&queue("q"), &ids[..1]).await[0].is_err());
    assert_eq!(admin.stats(&queue("q")).await.unwrap().dead, 0);
}
