//! What is set aside is complete, and comes back as it was.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString},
};
use longshore_core::{DeadLetter, ErrorKind, Reason, Text, Verdict};
use longshore_testing::brokers;

use crate::{
    plain::Plain,
    raw::{Raw, nested},
    rig::{Rig, Taker, body, message},
};

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn everything() -> BasicProperties {
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Timestamp(77));
    let array = vec![
        AMQPValue::FieldTable(inner.clone()),
        AMQPValue::Void,
        text("x"),
    ];
    let mut table = FieldTable::default();
    for (name, value) in [
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-8)),
        ("u8", AMQPValue::ShortShortUInt(8)),
        ("i16", AMQPValue::ShortInt(-16)),
        ("u16", AMQPValue::ShortUInt(16)),
        ("i32", AMQPValue::LongInt(-32)),
        ("u32", AMQPValue::LongUInt(32)),
        ("i64", AMQPValue::LongLongInt(-64)),
        ("f32", AMQPValue::Float(1.5)),
        ("f64", AMQPValue::Double(2.5)),
        ("text", text("text")),
        (
            "octets",
            AMQPValue::ByteArray(ByteArray::from(vec![0, 255])),
        ),
        ("time", AMQPValue::Timestamp(1)),
        ("void", AMQPValue::Void),
        ("table", AMQPValue::FieldTable(inner)),
        ("array", AMQPValue::FieldArray(FieldArray::from(array))),
        ("x-own", text("kept")),
    ] {
        table.insert(name.into(), value);
    }
    BasicProperties::default()
        .with_content_type("text/x-thing".into())
        .with_content_encoding("gzip".into())
        .with_headers(table)
        .with_delivery_mode(1)
        .with_priority(7)
        .with_correlation_id("c".into())
        .with_reply_to("somewhere".into())
        .with_expiration("600000".into())
        .with_message_id("m".into())
        .with_timestamp(123)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("app".into())
        .with_cluster_id("cl".into())
}

/// The same, as a redrive sends it back.
fn redriven(properties: BasicProperties) -> BasicProperties {
    let mut table = properties.headers().clone().unwrap_or_default();
    table.insert("longshore-redriven".into(), AMQPValue::Boolean(true));
    properties.with_headers(table)
}

async fn bury(taker: &mut Taker) {
    let delivery = taker.one().await;
    let defect = delivery.defect.clone();
    let (reason, detail) = match defect {
        Some(defect) => (defect.reason, defect.detail),
        None => (Reason::Permanent, "because".to_owned()),
    };
    taker
        .settle(delivery, Verdict::DeadLetter { reason, detail })
        .await;
}

/// Waits for dead letters that the broker itself moves.
async fn listed(rig: &Rig, count: usize) -> Vec<DeadLetter> {
    for _ in 0..100 {
        let letters = rig
            .transport
            .admin()
            .dead_letters(rig.queue(), None, 100)
            .await;
        let letters = letters.expect("a list");
        if letters.len() >= count {
            return letters;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there are no {count} dead letters");
}

fn ids(letters: &[DeadLetter]) -> Vec<Text> {
    letters.iter().map(|letter| letter.id.clone()).collect()
}

#[tokio::test]
async fn everything_a_plain_client_can_set_survives_retry_death_and_redrive() {
    let rig = Rig::new().await;
    let plain = Plain::connect(&rig.url).await;
    let octets: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    plain.publish(rig.queue(), everything(), &octets).await;
    let mut taker = rig.subscribe().await;
    for after in [Duration::ZERO, Duration::from_millis(150)] {
        let delivery = taker.one().await;
        taker.settle(delivery, Verdict::Retry { after }).await;
    }
    let delivery = taker.one().await;
    assert_eq!(delivery.attempt, 3);
    assert_eq!(delivery.envelope.header("i64"), Some("-64"));
    let reason = Reason::Permanent;
    let detail = "d".repeat(5000);
    taker
        .settle(delivery, Verdict::DeadLetter { reason, detail })
        .await;
    drop(taker);

    let letters = listed(&rig, 1).await;
    let letter = &letters[0];
    assert_eq!((letter.reason.as_str(), letter.attempts), ("permanent", 3));
    assert_eq!(letter.detail.len(), 4096);
    assert!(letter.redrivable && letter.at.is_some());
    assert!(letter.envelope.body == octets);
    for answer in rig
        .transport
        .admin()
        .redrive(rig.queue(), &ids(&letters))
        .await
    {
        answer.expect("redriven");
    }
    let (properties, body) = plain.take(rig.queue()).await;
    assert!(properties == redriven(everything()), "{properties:?}");
    assert!(body == octets);
    assert!(
        rig.transport
            .admin()
            .dead_letters(rig.queue(), None, 9)
            .await
            .expect("a list")
            .is_empty()
    );
}

#[tokio::test]
async fn what_a_worker_refuses_is_moved_whole_and_can_be_sent_back() {
    let rig = Rig::new().await;
    let plain = Plain::connect(&rig.url).await;
    let mut taker = rig.subscribe().await;
    // 120 KB of headers, nested twice as deep as a worker reads, and a body above its limit.
    let mut value = text(&"v".repeat(120_000));
    for _ in 0..16 {
        value = AMQPValue::FieldArray(FieldArray::from(vec![value]));
    }
    let mut table = FieldTable::default();
    table.insert("h".into(), value);
    let heavy = BasicProperties::default()
        .with_headers(table)
        .with_message_id("heavy".into());
    plain.publish(rig.queue(), heavy.clone(), b"small").await;
    let large = BasicProperties::default().with_message_id("large".into());
    let octets = vec![b'x'; 2_000_000];
    plain.publish(rig.queue(), large.clone(), &octets).await;
    bury(&mut taker).await;
    bury(&mut taker).await;
    drop(taker);

    let letters = listed(&rig, 2).await;
    let named = ids(&letters);
    assert!(named[0].starts_with("heavy~") && named[1].starts_with("large~"));
    assert_eq!(letters[0].reason, Reason::Hostile);
    assert_eq!(letters[1].reason, Reason::TooLarge);
    assert!(letters.iter().all(|letter| letter.redrivable));
    for answer in rig
        .transport
        .admin()
        .redrive(rig.queue(), &ids(&letters))
        .await
    {
        answer.expect("redriven");
    }
    assert!(plain.take(rig.queue()).await == (redriven(heavy), b"small".to_vec()));
    assert!(plain.take(rig.queue()).await == (redriven(large), octets));
}

#[tokio::test]
async fn what_nobody_may_read_is_listed_and_can_only_be_discarded() {
    let rig = Rig::new().await;
    let mut raw = Raw::connect(&rig.url).await;
    raw.publish_with_table(rig.queue(), &nested(20_000), b"bomb")
        .await;
    // RabbitMQ 4 itself refuses bodies above 16 MiB.
    let version = brokers::server_version(&rig.url).await.expect("a version");
    let second = match version.number.starts_with('3') {
        true => {
            let body = vec![b'x'; 20_000_000];
            raw.publish("", rig.queue().as_bytes(), 0, &[], &body).await;
            Reason::TooLarge
        }
        false => {
            raw.publish_with_table(rig.queue(), &nested(10_000), b"bomb")
                .await;
            Reason::Hostile
        }
    };
    let mut taker = rig.subscribe().await;
    bury(&mut taker).await;
    bury(&mut taker).await;
    let letters = listed(&rig, 2).await;
    let again = listed(&rig, 2).await;
    assert_eq!(ids(&letters), ids(&again), "the names stay the same");
    assert_eq!(letters[0].reason, Reason::Hostile);
    assert_eq!(letters[1].reason, second);
    let admin = rig.transport.admin();
    for answer in admin.redrive(rig.queue(), &ids(&letters)).await {
        assert_eq!(
            answer.expect_err("unreadable").kind(),
            ErrorKind::Unsupported
        );
    }
    assert_eq!(listed(&rig, 2).await.len(), 2);
    for answer in admin.discard(rig.queue(), &ids(&letters)[1..]).await {
        answer.expect("discarded");
    }
    assert_eq!(ids(&listed(&rig, 1).await), ids(&letters)[..1]);
}

#[tokio::test]
async fn an_expired_message_is_a_dead_letter_and_gets_its_time_again() {
    let rig = Rig::new().await;
    let plain = Plain::connect(&rig.url).await;
    let brief = BasicProperties::default()
        .with_message_id("brief".into())
        .with_expiration("50".into());
    plain.publish(rig.queue(), brief, b"x").await;
    let letters = listed(&rig, 1).await;
    assert_eq!(letters[0].reason, Reason::Expired);
    let admin = rig.transport.admin();
    for answer in admin.redrive(rig.queue(), &ids(&letters)).await {
        answer.expect("redriven");
    }
    assert_eq!(listed(&rig, 1).await[0].reason, Reason::Expired);
}

#[tokio::test]
async fn pages_follow_each_other_also_where_ids_are_equal_and_reading_changes_nothing() {
    let rig = Rig::new().await;
    for n in 0..7 {
        let mut outgoing = rig.outgoing(message(&n.to_string()));
        if n % 2 == 0 {
            outgoing.envelope.id = "twin".into();
        }
        let answer = rig.transport.publish(vec![outgoing]).await.pop();
        answer.expect("an answer").expect("a confirm");
    }
    let mut taker = rig.subscribe().await;
    for _ in 0..7 {
        bury(&mut taker).await;
    }
    let admin = rig.transport.admin();
    for _ in 0..2 {
        let (mut bodies, mut after) = (Vec::new(), None);
        loop {
            let page = admin
                .dead_letters(rig.queue(), after.as_ref(), 2)
                .await
                .expect("a page");
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            bodies.extend(page.iter().map(|letter| letter.envelope.body.clone()));
        }
        assert_eq!(bodies, ["0", "1", "2", "3", "4", "5", "6"]);
    }
    let stats = admin.stats(rig.queue()).await.expect("figures");
    assert_eq!((stats.ready, stats.dead, stats.consumers), (0, 7, Some(1)));
    let all = admin.dead_letters(rig.queue(), None, 9).await;
    let named = ids(&all.expect("a list"));
    // A name stays what it is, whatever becomes of the others.
    let gone = admin.discard(rig.queue(), &named[..1]).await;
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
    let left = admin.dead_letters(rig.queue(), None, 9).await;
    assert_eq!(ids(&left.expect("a list")), named[1..]);
    let wanted = [named[2].clone(), "unheard-of".into(), named[6].clone()];
    let answers = admin.redrive(rig.queue(), &wanted).await;
    let kinds: Vec<_> = answers
        .into_iter()
        .map(|a| a.err().map(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Stale), None]);
    let mut back = taker.exactly(2).await;
    back.sort_by_key(|delivery| body(delivery).to_owned());
    assert_eq!((body(&back[0]), body(&back[1])), ("2", "6"));
    assert!(
        back.iter()
            .all(|d| d.attempt == 1 && d.envelope.id == "twin")
    );
}

#[tokio::test]
async fn two_readers_take_turns() {
    let rig = Rig::new().await;
    rig.publish((0..50).map(|n| n.to_string())).await;
    let mut taker = rig.subscribe().await;
    for _ in 0..50 {
        bury(&mut taker).await;
    }
    let admin = rig.transport.admin();
    let read = || admin.dead_letters(rig.queue(), None, 50);
    let (one, two, three) = tokio::join!(read(), read(), read());
    for letters in [one, two, three] {
        assert_eq!(letters.expect("a list").len(), 50);
    }
}
