//! Requests and their replies.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Consumer,
    options::BasicConsumeOptions,
    types::{AMQPValue, FieldTable},
};
use longshore_core::{
    ConnectOptions, Delivery, Destination, Envelope, Error, ErrorKind, Outgoing, Published,
    ReplyAddress, Source,
};
use longshore_testing::{brokers, proxy::Proxy};
use tokio::time::timeout;

use crate::{
    plain::Plain,
    rig::{PATIENCE, Rig, SILENCE, body, connect, message},
};

type Inbox = Box<dyn Source>;

async fn inbox(rig: &Rig) -> (ReplyAddress, Inbox) {
    rig.transport.inbox().await.expect("an inbox")
}

async fn take(inbox: &mut Inbox, max: usize) -> Result<Vec<Delivery>, Error> {
    let mut into = Vec::new();
    let received = poll_fn(|cx| inbox.poll_receive(cx, max, &mut into));
    let count = timeout(PATIENCE, received)
        .await
        .expect("something in time")?;
    assert_eq!(count, into.len());
    Ok(into)
}

fn reply(rig: &Rig, to: &ReplyAddress, envelope: Envelope) -> Outgoing {
    Outgoing {
        to: Destination::Reply(to.clone()),
        ..rig.outgoing(envelope)
    }
}

async fn send(rig: &Rig, batch: Vec<Outgoing>) {
    let answers = rig.transport.publish(batch).await;
    for answer in answers {
        assert_eq!(answer.expect("a confirm"), Published::Accepted);
    }
}

#[tokio::test]
async fn replies_arrive_with_what_the_framework_wrote_and_nothing_is_settled() {
    let rig = Rig::new().await;
    let (address, mut inbox) = inbox(&rig).await;
    assert!(address.as_str().starts_with("amq.gen-"), "{address:?}");
    let batch = (0..1000).map(|n| {
        let mut envelope = message(&n.to_string());
        envelope.correlation_id = Some("a question".into());
        envelope.headers = vec![
            ("longshore-reply".into(), Bytes::from("part")),
            ("longshore-reply-number".into(), Bytes::from(n.to_string())),
            ("own".into(), Bytes::from("kept")),
        ];
        reply(&rig, &address, envelope)
    });
    send(&rig, batch.collect()).await;
    let mut count = 0;
    while count < 1000 {
        for delivery in take(&mut inbox, 64).await.expect("alive") {
            let (envelope, number) = (&delivery.envelope, count.to_string());
            assert_eq!(body(&delivery), number);
            assert_eq!(envelope.header("longshore-reply"), Some("part"));
            let told = envelope.header("longshore-reply-number");
            assert_eq!(told, Some(number.as_str()));
            assert_eq!(envelope.header("own"), Some("kept"));
            assert_eq!(envelope.correlation_id.as_deref(), Some("a question"));
            assert!(delivery.defect.is_none());
            count += 1;
        }
    }
    // Nobody else may write them.
    let mut forged = rig.outgoing(message("x"));
    forged.envelope.headers = vec![("longshore-reply".into(), Bytes::from("last"))];
    let refused = rig.transport.publish(vec![forged]).await.pop();
    let refused = refused.expect("an answer").expect_err("reserved");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

/// The address of a plain client that asked and left.
async fn left(rig: &Rig) -> String {
    let plain = Plain::connect(&rig.url).await;
    let _answers = ask(&plain, rig).await;
    let mut taker = rig.subscribe().await;
    let asked = taker.one().await;
    let address = asked.envelope.reply_to.clone().expect("an address");
    taker.complete(vec![asked]).await;
    plain.leave().await;
    address.as_str().to_owned()
}

async fn ask(plain: &Plain, rig: &Rig) -> Consumer {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let answers =
        plain
            .channel
            .basic_consume(DIRECT.into(), "".into(), options, FieldTable::default());
    let answers = answers.await.expect("direct replies");
    let question = BasicProperties::default()
        .with_reply_to(DIRECT.into())
        .with_correlation_id("7".into())
        .with_type("question".into());
    plain.publish(rig.queue(), question, b"?").await;
    answers
}

const DIRECT: &str = "amq.rabbitmq.reply-to";

#[tokio::test]
async fn a_reply_to_whoever_has_gone_is_accepted_and_dropped() {
    let rig = Rig::new().await;
    let (address, inbox) = inbox(&rig).await;
    drop(inbox);
    let mut queues = Vec::new();
    for gone in [address.as_str(), "amq.gen-none", &left(&rig).await] {
        let gone = ReplyAddress::checked(gone);
        queues.push(reply(&rig, &gone, message("late")));
    }
    send(&rig, queues).await;
    // The queue is gone with its reader.
    let plain = Plain::connect(&rig.url).await;
    let started = Instant::now();
    let passive = lapin::options::QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    loop {
        let channel = plain.new_channel().await;
        let name = address.as_str().into();
        let found = channel.queue_declare(name, passive, FieldTable::default());
        match found.await.expect_err("it is nobody's").to_string() {
            gone if gone.contains("NOT_FOUND") || gone.contains("NOT-FOUND") => break,
            other => assert!(started.elapsed() < PATIENCE, "{other}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_inbox_whose_connection_is_lost_ends_with_an_error_and_another_works() {
    let url = brokers::amqp_url().expect("a broker");
    let upstream = url.rsplit('@').next().expect("a host").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let rig = Rig::on(&proxy.url(&url)).await;
    let sender = Rig::new().await;
    let (address, mut first) = inbox(&rig).await;
    send(&sender, vec![reply(&sender, &address, message("one"))]).await;
    assert_eq!(body(&take(&mut first, 1).await.expect("alive")[0]), "one");
    proxy.reset_all().await;
    for _ in 0..2 {
        let ended = take(&mut first, 1).await.expect_err("replies may be lost");
        assert_eq!(ended.kind(), ErrorKind::Unavailable);
    }
    send(&sender, vec![reply(&sender, &address, message("lost"))]).await;
    let (address, mut second) = inbox(&rig).await;
    send(&sender, vec![reply(&sender, &address, message("two"))]).await;
    assert_eq!(body(&take(&mut second, 1).await.expect("alive")[0]), "two");
    rig.transport.close(PATIENCE).await;
    let ended = take(&mut second, 1).await.expect_err("closed");
    assert_eq!(ended.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_stopped_inbox_gives_what_it_has_and_ends() {
    let rig = Rig::new().await;
    let (address, mut inbox) = inbox(&rig).await;
    let refused = inbox.set_prefetch(1).expect_err("nothing is settled");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let batch = ["a", "b"].map(|text| reply(&rig, &address, message(text)));
    send(&rig, batch.into()).await;
    let mut got = take(&mut inbox, 1).await.expect("alive");
    while got.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        inbox.stop();
        got.extend(take(&mut inbox, 9).await.expect("what had arrived"));
    }
    inbox.stop();
    assert!(take(&mut inbox, 9).await.expect("an end").is_empty());
}

#[tokio::test]
async fn ten_thousand_replies_wait_and_what_comes_beyond_is_dropped() {
    let rig = Rig::new().await;
    let (address, mut inbox) = inbox(&rig).await;
    for _ in 0..11 {
        let batch = (0..1000).map(|_| reply(&rig, &address, message("x")));
        send(&rig, batch.collect()).await;
    }
    // The last of them is dropped only once all before it have been read.
    let started = Instant::now();
    let mut waiting = usize::MAX;
    while waiting > 0 && started.elapsed() < PATIENCE {
        tokio::time::sleep(SILENCE).await;
        waiting = take(&mut inbox, 0).await.expect("alive").len();
    }
    let mut count = 0;
    while count < 10_000 {
        count += take(&mut inbox, 4096).await.expect("alive").len();
    }
    assert_eq!(count, 10_000);
    send(&rig, vec![reply(&rig, &address, message("next"))]).await;
    let next = take(&mut inbox, 1).await.expect("alive");
    assert_eq!(body(&next[0]), "next");
}

#[tokio::test]
async fn a_plain_client_asks_and_reads_its_answer() {
    let rig = Rig::new().await;
    let plain = Plain::connect(&rig.url).await;
    let mut answers = ask(&plain, &rig).await;
    let mut taker = rig.subscribe().await;
    let asked = taker.one().await;
    let address = asked.envelope.reply_to.clone().expect("an address");
    let mut envelope = message("!");
    envelope.correlation_id = asked.envelope.correlation_id.clone();
    envelope.headers = vec![
        ("longshore-reply".into(), Bytes::from("last")),
        ("longshore-reply-number".into(), Bytes::from("1")),
    ];
    send(&rig, vec![reply(&rig, &address, envelope)]).await;
    taker.complete(vec![asked]).await;
    let answer = timeout(PATIENCE, answers.next()).await.expect("in time");
    let answer = answer.expect("an answer").expect("a living channel");
    assert_eq!(answer.data, b"!");
    let id = answer.properties.correlation_id().as_ref();
    assert_eq!(id.map(|id| id.as_str()), Some("7"));
    let table = answer.properties.headers().clone().expect("headers");
    assert_eq!(
        table.inner().get("longshore-reply-number"),
        Some(&AMQPValue::LongLongInt(1))
    );
}

#[tokio::test]
async fn an_address_of_another_cluster_harms_no_one_but_itself() {
    let rig = Rig::new().await;
    let (address, mut inbox) = inbox(&rig).await;
    // Process 0 of node `reply@1`, as no client of this broker has it.
    let forged = "amq.rabbitmq.reply-to.g1h2AAdyZXBseUAxAAAAAQAAAAAAAAAB.AAAA";
    let forged = ReplyAddress::checked(forged);
    for number in 0..3 {
        let batch = vec![
            reply(&rig, &address, message(&number.to_string())),
            reply(&rig, &forged, message("nowhere")),
            rig.outgoing(message("work")),
        ];
        let answers = rig.transport.publish(batch).await;
        let kinds: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.map_err(|error| error.kind()))
            .collect();
        assert_eq!(
            (kinds[0], kinds[2]),
            (Ok(Published::Accepted), Ok(Published::Accepted))
        );
        // RabbitMQ 3 closes the connection it came on, later ones drop it.
        let fates = [Ok(Published::Accepted), Err(ErrorKind::Unknown)];
        assert!(fates.contains(&kinds[1]), "{kinds:?}");
        let answer = take(&mut inbox, 1).await.expect("alive");
        assert_eq!(body(&answer[0]), number.to_string());
    }
    // Whoever really waits is answered afterwards.
    let mut taker = rig.subscribe().await;
    let work = taker.exactly(3).await;
    taker.complete(work).await;
    let plain = Plain::connect(&rig.url).await;
    let mut answers = ask(&plain, &rig).await;
    let asked = taker.one().await;
    let address = asked.envelope.reply_to.clone().expect("an address");
    send(&rig, vec![reply(&rig, &address, message("!"))]).await;
    let answer = timeout(PATIENCE, answers.next()).await.expect("in time");
    assert_eq!(answer.expect("one").expect("alive").data, b"!");
}

#[tokio::test]
async fn forged_addresses_are_ignored_and_a_configured_prefix_is_not() {
    let rig = Rig::new().await;
    let mut options = ConnectOptions::default();
    options.reply_prefix = Some("answers.".into());
    let prefixed = longshore_amqp::connect(&rig.url, options).await;
    let prefixed = prefixed.expect("a connection");
    let strict = connect(&rig.url).await;
    let plain = Plain::connect(&rig.url).await;
    let subscription = rig.subscription();
    for (address, anyway, by_prefix) in [
        ("payments", false, false),
        ("", false, false),
        ("orders.dlq", false, false),
        ("amq.rabbitmq.reply-to", false, false),
        ("answers.mine", false, true),
        // RabbitMQ 3.10 closes the connection of whoever publishes to these.
        ("amq.rabbitmq.reply-to.", false, false),
        (
            "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA0NjEx.forged==",
            false,
            false,
        ),
        ("amq.rabbitmq.reply-to.not-base-64.key", false, false),
        ("amq.gen-x", true, true),
    ] {
        for (transport, allowed) in [(&strict, anyway), (&prefixed, by_prefix)] {
            let properties = BasicProperties::default().with_reply_to(address.into());
            // The broker itself refuses the bare pseudo-queue where nobody consumes it.
            if address != "amq.rabbitmq.reply-to" {
                plain.publish(rig.queue(), properties, b"?").await;
                let subscribed = transport.subscribe(subscription.clone()).await;
                let (source, settler) = subscribed.expect("a subscription");
                let mut taker = crate::rig::Taker { source, settler };
                let delivery = taker.one().await;
                let told = delivery.envelope.reply_to.as_ref();
                assert_eq!(told.map(ReplyAddress::as_str), allowed.then_some(address));
                taker.complete(vec![delivery]).await;
            }
            let to = ReplyAddress::checked(address);
            let answer = transport
                .publish(vec![reply(&rig, &to, message("!"))])
                .await;
            let kind = answer.into_iter().next().expect("an answer");
            let kind = kind.map_err(|error| error.kind());
            let expected = match allowed {
                true => Ok(Published::Accepted),
                false => Err(ErrorKind::Invalid),
            };
            assert_eq!(kind, expected, "{address}");
        }
    }
    let mut late = reply(&rig, &ReplyAddress::checked("amq.gen-x"), message("!"));
    late.delay = Duration::from_millis(50);
    let refused = strict.publish(vec![late]).await.pop().expect("an answer");
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Unsupported));
}
