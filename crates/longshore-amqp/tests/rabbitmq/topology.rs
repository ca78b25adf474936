//! Declaring, verifying, differing.

use std::time::Duration;

use longshore_core::{Declare, Destination, ErrorKind, Settlement, Topology, Verdict};
use longshore_testing::brokers::{Broker, BrokerKind};

use crate::rig::{PATIENCE, Rig, Taker, body, connect, message, unique};

#[tokio::test]
async fn verifying_creates_nothing() {
    let rig = Rig::new().await;
    let topology = Topology::new(unique());
    let transport = connect(&rig.url).await;
    for _ in 0..2 {
        let refused = transport.declare(&topology, Declare::Verify).await;
        assert_eq!(refused.expect_err("missing").kind(), ErrorKind::NoSuchQueue);
    }
    transport
        .declare(&rig.topology, Declare::Verify)
        .await
        .expect("it is there");
    transport
        .declare(&rig.topology, Declare::Create)
        .await
        .expect("declared again");
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_refused_with_what_differs() {
    let rig = Rig::new().await;
    let name = unique();
    // An exclusive classic queue of that name, made by hand.
    let mut raw = crate::raw::Raw::connect(&rig.url).await;
    raw.declare_classic(&name).await;
    let refused = rig
        .transport
        .declare(&Topology::new(name.clone()), Declare::Create)
        .await;
    let error = refused.expect_err("it differs");
    assert_eq!(error.kind(), ErrorKind::TopologyDiffers);
    let text = error.to_string();
    // The broker names the first argument it finds different, in no particular order.
    assert!(
        text.contains(&*name) && text.contains("exists with another x-"),
        "{text}"
    );
    assert!(
        text.contains("it has none, Longshore declares the value"),
        "{text}"
    );
}

#[tokio::test]
async fn a_topic_reaches_every_queue_bound_to_it_and_needs_one() {
    let (mut one, mut two) = (Rig::new().await, Rig::new().await);
    let (topic, lonely) = (unique(), unique());
    one.topology.topics = vec![topic.clone(), lonely.clone()];
    two.topology.topics = vec![topic.clone()];
    let (mut first, mut second) = (one.subscribe().await, two.subscribe().await);
    let mut outgoing = one.outgoing(message("all"));
    outgoing.to = Destination::Topic(topic);
    let mut nowhere = outgoing.clone();
    nowhere.to = Destination::Topic(unique());
    let mut answers = one.transport.publish(vec![nowhere, outgoing]).await;
    answers.pop().expect("an answer").expect("a confirm");
    let refused = answers
        .pop()
        .expect("an answer")
        .expect_err("no such topic");
    assert_eq!(refused.kind(), ErrorKind::NoSuchQueue);
    assert_eq!(body(&first.one().await), "all");
    assert_eq!(body(&second.one().await), "all");
}

#[tokio::test]
async fn a_verifying_subscription_waits_for_a_queue_and_never_makes_it() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    let mut subscription = rig.subscription();
    subscription.declare = Declare::Verify;
    let verifier = connect(&broker.url()).await;
    let (source, settler) = verifier.subscribe(subscription).await.expect("it is there");
    let mut taker = Taker { source, settler };
    // Delayed retries of a client that creates nothing need a ladder somebody else has made.
    rig.publish(["x"]).await;
    let delivery = taker.one().await;
    let verdict = Verdict::Retry {
        after: Duration::from_millis(100),
    };
    let settlement = Settlement::new(delivery.receipt, 1, verdict, delivery.envelope);
    let refused = taker.settle_one(settlement).await.expect_err("no ladder");
    assert_eq!(refused.error.kind(), ErrorKind::NoSuchQueue);
    assert!(
        refused.error.to_string().contains("creates nothing"),
        "{}",
        refused.error
    );
    let mut delayed = rig.outgoing(message("y"));
    delayed.delay = Duration::from_millis(1);
    rig.transport
        .publish(vec![delayed])
        .await
        .pop()
        .expect("one")
        .expect("a ladder");
    let settled = taker
        .settle_one(*refused.settlement.expect("to try again"))
        .await;
    settled
        .map_err(|unsettled| unsettled.error)
        .expect("settled");

    let names = [
        rig.queue().to_string(),
        format!("{}.quarantine", rig.queue()),
    ];
    for name in &names {
        broker
            .rabbitmqctl(&["delete_queue", name])
            .await
            .expect("deleted");
    }
    let from = std::time::Instant::now();
    while taker
        .source
        .trouble()
        .is_none_or(|why| !why.contains(&names[0]))
    {
        assert!(from.elapsed() < PATIENCE, "{:?}", taker.source.trouble());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let list = broker
        .rabbitmqctl(&["list_queues", "name"])
        .await
        .expect("a list");
    assert!(!list.lines().any(|line| line == names[0]), "{list}");
    rig.transport
        .declare(&rig.topology, Declare::Create)
        .await
        .expect("declared");
    rig.publish(["z"]).await;
    assert_eq!(body(&taker.one().await), "z");
    // Each of the two queues is found again by itself.
    let from = std::time::Instant::now();
    while let Some(why) = taker.source.trouble() {
        assert!(from.elapsed() < PATIENCE, "{why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
