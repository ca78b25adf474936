//! Requests and replies: for clients of ours and plain ones, and through what happens to the server.
#![allow(clippy::unwrap_used)]

mod server;

use std::{future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{
    Delivery, Destination, Envelope, ErrorKind, Outgoing, Published, ReplyAddress, Result, Source,
    Transport,
};
use longshore_testing::proxy::Proxy;
use server::{Consumer, Server, body, options, subscription, until};

const LOCK: Duration = Duration::from_secs(30);

/// Id, and names and values in turn.
type Entry = (String, Vec<String>);

fn reply(address: &str, body: &str) -> Outgoing {
    Outgoing {
        to: Destination::Reply(ReplyAddress::checked(address)),
        envelope: Envelope::new("quote.reply", body.to_owned()),
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

async fn answer(transport: &Arc<dyn Transport>, address: &str, body: &str) -> Result<Published> {
    transport
        .publish(vec![reply(address, body)])
        .await
        .remove(0)
}

async fn some(source: &mut Box<dyn Source>, within: Duration) -> Option<Result<Vec<Delivery>>> {
    let mut got = Vec::new();
    let came = poll_fn(|cx| source.poll_receive(cx, 1000, &mut got));
    let came = tokio::time::timeout(within, came).await.ok()?;
    Some(came.map(|_| got))
}

async fn exactly(source: &mut Box<dyn Source>, count: usize) -> Vec<Delivery> {
    let mut got = Vec::new();
    while got.len() < count {
        let more = some(source, Duration::from_secs(20)).await;
        got.extend(more.expect("no reply came").unwrap());
    }
    assert_eq!(got.len(), count);
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_lives_as_long_as_its_source_and_keeps_nothing_that_was_read() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let (address, mut source) = transport.inbox().await.unwrap();
    let key = address.as_str().to_owned();
    let digits = key.strip_prefix("ls:reply:").unwrap();
    assert!(digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!((1..=60).contains(&server.query::<i64>(&format!("TTL {key}"))));
    let batch = (0..1500).map(|n| reply(&key, &n.to_string())).collect();
    for answer in transport.publish(batch).await {
        assert_eq!(answer.unwrap(), Published::Accepted);
    }
    let got = exactly(&mut source, 1500).await;
    let wanted: Vec<_> = (0..1500).map(|n| n.to_string()).collect();
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), wanted);
    until("what was read is dropped", || {
        server.query::<u64>(&format!("XLEN {key}")) == 0
    })
    .await;
    drop(source);
    until("the address is taken away", || {
        !server.query::<bool>(&format!("EXISTS {key}"))
    })
    .await;
    let late = answer(&transport, &key, "late").await;
    assert_eq!(late.unwrap(), Published::Accepted);
    assert!(!server.query::<bool>(&format!("EXISTS {key}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_requester_who_does_not_read_is_bounded() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let (address, source) = transport.inbox().await.unwrap();
    let key = address.as_str().to_owned();
    for _ in 0..30 {
        let batch = (0..1000).map(|n| reply(&key, &n.to_string())).collect();
        transport.publish(batch).await;
    }
    assert!(server.query::<u64>(&format!("XLEN {key}")) < 11_000);
    drop(transport);
    drop(source);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_loses_no_reply() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.broker.addr(0)).await.unwrap();
    let url = format!("redis://{}", proxy.addr());
    let asking = longshore_redis::connect(&url, options()).await.unwrap();
    let answering = server.connect().await;
    let (address, mut source) = asking.inbox().await.unwrap();
    let mut wanted = Vec::new();
    let mut got = Vec::new();
    for round in 0..10 {
        for n in 0..20 {
            let text = format!("{round}-{n}");
            let stored = answer(&answering, address.as_str(), &text).await;
            assert_eq!(stored.unwrap(), Published::Accepted);
            wanted.push(text);
            if n == round * 2 {
                proxy.reset_all().await;
            }
        }
    }
    while got.len() < wanted.len() {
        let more = some(&mut source, Duration::from_secs(20)).await;
        got.extend(more.expect("a reply was lost").unwrap().iter().map(body));
    }
    assert_eq!(got, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_address_is_gone_says_so() {
    let mut server = Server::start(&["appendonly no", "save \"\""]).await;
    let transport = server.connect().await;
    let (address, mut source) = transport.inbox().await.unwrap();
    let (_, mut other) = transport.inbox().await.unwrap();
    server.query::<u64>(&format!("DEL {}", address.as_str()));
    let ended = some(&mut source, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
    // A server that has come back without its data.
    server.broker.kill().await.unwrap();
    server.broker.start_again().await.unwrap();
    let ended = some(&mut other, Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
    let (address, mut source) = transport.inbox().await.unwrap();
    answer(&transport, address.as_str(), "new").await.unwrap();
    assert_eq!(body(&exactly(&mut source, 1).await[0]), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_survives_the_restart_of_a_durable_server() {
    let mut server = Server::start(&["appendfsync always"]).await;
    let transport = server.connect().await;
    let (address, mut source) = transport.inbox().await.unwrap();
    answer(&transport, address.as_str(), "1").await.unwrap();
    exactly(&mut source, 1).await;
    server.broker.kill().await.unwrap();
    server.broker.start_again().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while answer(&transport, address.as_str(), "2").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(body(&exactly(&mut source, 1).await[0]), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_asks_and_is_answered() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let mut consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    server.query::<String>("XADD ls:reply:mine MAXLEN 0 * made 1");
    server.query::<String>(
        "XADD ls:{q}:stream * type quote body {} correlation_id 7 reply_to ls:reply:mine",
    );
    let request = consumer.one().await;
    let address = request.envelope.reply_to.clone().unwrap();
    let mut envelope = Envelope::new("quote.reply", "{\"price\":7}");
    envelope.correlation_id = request.envelope.correlation_id.clone();
    envelope.headers = vec![
        ("longshore-reply".into(), "last".into()),
        ("longshore-reply-number".into(), "0".into()),
    ];
    let mut outgoing = reply(address.as_str(), "");
    outgoing.envelope = envelope;
    transport.publish(vec![outgoing]).await.remove(0).unwrap();
    let read: Vec<(String, Vec<Entry>)> = server.query("XREAD STREAMS ls:reply:mine 0");
    let (_, flat) = &read[0].1[0];
    let fields: Vec<_> = flat
        .chunks(2)
        .map(|pair| (pair[0].as_str(), pair[1].as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            ("type", "quote.reply"),
            ("correlation_id", "7"),
            ("reply", "last"),
            ("reply_number", "0"),
            ("body", "{\"price\":7}")
        ]
    );
    assert!(consumer.complete(vec![request]).await[0].is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_an_address_for_replies_is_written_to() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let _consumer = Consumer::new(&transport, subscription("q", 8, LOCK)).await;
    for forged in [
        "ls:{q}:stream",
        "other:reply:x",
        "ls:reply:",
        "ls:reply:{q}:stream",
    ] {
        let refused = answer(&transport, forged, "x").await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid, "{forged}");
    }
    server.query::<u64>("SADD ls:reply:set x");
    let dropped = answer(&transport, "ls:reply:set", "x").await;
    assert_eq!(dropped.unwrap(), Published::Accepted);
    assert_eq!(server.query::<u64>("XLEN ls:{q}:stream"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_client_ends_its_inboxes_and_takes_them_away() {
    let server = Server::start(&[]).await;
    let transport = server.connect().await;
    let (_, mut source) = transport.inbox().await.unwrap();
    let (_, mut stopped) = transport.inbox().await.unwrap();
    stopped.stop();
    let ended = some(&mut stopped, Duration::from_secs(5)).await.unwrap();
    assert!(ended.unwrap().is_empty());
    transport.close(Duration::from_secs(5)).await;
    let ended = some(&mut source, Duration::from_secs(5)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        transport.inbox().await.err().unwrap().kind(),
        ErrorKind::Closed
    );
    assert_eq!(server.query::<Vec<String>>("KEYS ls:reply:*").len(), 0);
}
