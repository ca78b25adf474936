//! Addresses for replies and what arrives there.

use std::{sync::Arc, task::Poll, time::Duration};

use futures_util::future::poll_fn;
use longshore_core::{
    ConnectOptions, Declare, Delivery, Destination, Envelope, ErrorKind, Limits, Name, Outgoing,
    Part, Published, ReplyAddress, Result, Source, Subscription, Topology, Transport,
};
use longshore_memory::MemoryBroker;

fn broker() -> MemoryBroker {
    MemoryBroker::new(&ConnectOptions::default())
}

fn outgoing(to: Destination, envelope: Envelope) -> Outgoing {
    Outgoing {
        to,
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

async fn reply(transport: &Arc<dyn Transport>, to: &ReplyAddress, body: &'static str) {
    let mut envelope = Envelope::new("quote", body);
    envelope.headers = vec![("longshore-reply".into(), "last".into())];
    let outgoing = outgoing(Destination::Reply(to.clone()), envelope);
    let answers = transport.publish(vec![outgoing]).await;
    assert!(
        matches!(answers[..], [Ok(Published::Accepted)]),
        "{answers:?}"
    );
}

async fn receive(source: &mut Box<dyn Source>) -> Result<Vec<Delivery>> {
    let mut into = Vec::new();
    let count = poll_fn(|cx| source.poll_receive(cx, 64, &mut into)).await?;
    assert_eq!(count, into.len());
    Ok(into)
}

async fn is_quiet(source: &mut Box<dyn Source>) -> bool {
    poll_fn(|cx| Poll::Ready(source.poll_receive(cx, 64, &mut Vec::new()).is_pending())).await
}

#[tokio::test]
async fn replies_arrive_in_order_at_their_address_and_nowhere_else() {
    let broker = broker();
    let (desk, customer) = (broker.open(), broker.open());
    let (first, mut to_first) = customer.inbox().await.expect("an inbox");
    let (second, mut to_second) = customer.inbox().await.expect("an inbox");
    assert_ne!(first, second);
    reply(&desk, &first, "a").await;
    reply(&desk, &first, "b").await;
    let taken = receive(&mut to_first).await.expect("replies");
    let bodies: Vec<_> = taken.iter().map(|d| &d.envelope.body[..]).collect();
    assert_eq!(bodies, [b"a", b"b"]);
    assert_eq!(taken[0].envelope.header("longshore-reply"), Some("last"));
    assert!(is_quiet(&mut to_first).await && is_quiet(&mut to_second).await);
}

#[tokio::test]
async fn a_reply_to_nobody_is_accepted_and_dropped() {
    let transport = broker().open();
    reply(&transport, &ReplyAddress::checked("orders"), "a").await;
    let (address, source) = transport.inbox().await.expect("an inbox");
    drop(source);
    reply(&transport, &address, "b").await;
    let queue = Name::new("orders").expect("a name");
    let missing = transport.admin().stats(&queue).await;
    let missing = missing.map_err(|e| e.kind());
    assert_eq!(missing, Err(ErrorKind::NoSuchQueue));
}

#[tokio::test]
async fn an_inbox_ends_by_stop_by_a_cut_and_by_closing_and_each_says_so() {
    let broker = broker();
    let (desk, customer) = (broker.open(), broker.open());
    let (address, mut stopped) = customer.inbox().await.expect("an inbox");
    reply(&desk, &address, "before").await;
    stopped.stop();
    reply(&desk, &address, "after").await;
    assert_eq!(receive(&mut stopped).await.expect("replies").len(), 1);
    assert_eq!(receive(&mut stopped).await.expect("the end").len(), 0);

    let (address, mut cut) = customer.inbox().await.expect("an inbox");
    reply(&desk, &address, "before").await;
    broker.lose_locks();
    reply(&desk, &address, "after").await;
    assert_eq!(receive(&mut cut).await.expect("replies").len(), 1);
    let error = receive(&mut cut).await.expect_err("the end");
    assert_eq!(error.kind(), ErrorKind::Unknown);

    let (_, mut closed) = customer.inbox().await.expect("an inbox");
    let (_, mut other) = desk.inbox().await.expect("an inbox");
    customer.close(Duration::ZERO).await;
    let error = receive(&mut closed).await.expect_err("the end");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(is_quiet(&mut other).await && customer.inbox().await.is_err());
}

#[tokio::test]
async fn a_request_shows_only_an_address_of_this_brokers_form() {
    let transport = broker().open();
    let topology = Arc::new(Topology::new(Name::new("desk").expect("a name")));
    let subscription = Subscription {
        topology: topology.clone(),
        declare: Declare::Create,
        part: Part::Lane(0),
        ownership: None,
        prefetch: 64,
        lock: Duration::from_secs(30),
        suspect_returns: 2,
        limits: Limits::default(),
    };
    let (mut source, _settler) = transport.subscribe(subscription).await.expect("subscribes");
    let (address, _inbox) = transport.inbox().await.expect("an inbox");
    for to in [address.clone(), ReplyAddress::checked("amq.topic")] {
        let mut envelope = Envelope::new("get-quote", "{}");
        envelope.reply_to = Some(to);
        let to = Destination::Queue(topology.queue.clone(), Part::Lane(0));
        transport.publish(vec![outgoing(to, envelope)]).await;
    }
    let taken = receive(&mut source).await.expect("requests");
    assert_eq!(taken[0].envelope.reply_to, Some(address));
    assert_eq!(taken[1].envelope.reply_to, None);
}
