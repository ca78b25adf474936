//! Declaring, verifying, differing.

use longshore_core::{Declare, Destination, ErrorKind, Topology};

use crate::rig::{Rig, body, connect, message, unique};

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
