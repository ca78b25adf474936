//! What a user may not do is said so, and not tried for ever.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Declare, Destination, ErrorKind, Limits, Name, Outgoing, Part, Subscription, Topology,
};
use longshore_testing::brokers::{Broker, BrokerKind};

use crate::rig::{Rig, body, connect, message};

#[tokio::test]
async fn who_may_not_read_is_told_at_the_start_and_who_may_not_write_at_the_publish() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    for (user, write, read) in [("writer", ".*", "^$"), ("reader", "^$", ".*")] {
        let add = ["add_user", user, "secret"];
        broker.rabbitmqctl(&add).await.expect("a user");
        let permit = ["set_permissions", user, "^$", write, read];
        broker.rabbitmqctl(&permit).await.expect("permissions");
    }
    let as_user = |user: &str| {
        let url = broker.url();
        let host = url.rsplit('@').next().expect("a host").to_owned();
        format!("amqp://{user}:secret@{host}")
    };

    let writer = connect(&as_user("writer")).await;
    let mut subscription = rig.subscription();
    subscription.declare = Declare::Verify;
    let refused = writer.subscribe(subscription.clone()).await.err();
    assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::Denied));
    let sent = writer.publish(vec![rig.outgoing(message("x"))]).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");

    let reader = connect(&as_user("reader")).await;
    for _ in 0..2 {
        let mut sent = reader.publish(vec![rig.outgoing(message("y"))]).await;
        let refused = sent.pop().expect("an answer").expect_err("no permission");
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
    let pair = vec![rig.outgoing(message("y")), rig.outgoing(message("z"))];
    for answer in reader.publish(pair).await {
        let unsure = answer.expect_err("no permission");
        assert_eq!(unsure.kind(), ErrorKind::Unknown, "{unsure}");
    }
    let (source, settler) = reader.subscribe(subscription).await.expect("a reader");
    let mut taker = crate::rig::Taker { source, settler };
    let delivery = taker.one().await;
    assert_eq!(body(&delivery), "x");
    taker.complete(vec![delivery]).await;
}

/// What `docs/security.md` adds to the permissions of a service for lanes and for requests.
#[tokio::test]
async fn lanes_topics_and_requests_need_no_more_than_is_documented() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let plain = r"orders(\.p\.high|\.dlq|\.quarantine(\.[0-9a-f]+)?)?|placed|longshore\.delay\..+";
    let lanes = r"longshore\.(lanes|rest)\.orders";
    for (user, configure, write, read) in [
        (
            "lanes",
            format!("^({plain}|{lanes}|amq\\.gen.*)$"),
            format!(r"^(amq\.default|{plain}|{lanes})$"),
            format!("^({plain}|{lanes}|amq\\.gen.*)$"),
        ),
        (
            "plain",
            format!("^({plain})$"),
            format!(r"^(amq\.default|{plain})$"),
            format!("^({plain})$"),
        ),
    ] {
        let add = ["add_user", user, "secret"];
        broker.rabbitmqctl(&add).await.expect("a user");
        let permit = ["set_permissions", user, &configure, &write, &read];
        broker.rabbitmqctl(&permit).await.expect("permissions");
    }
    let url = broker.url();
    let host = url.rsplit('@').next().expect("a host").to_owned();
    let [with, without] = ["lanes", "plain"].map(|user| format!("amqp://{user}:secret@{host}"));
    let (with, without) = (connect(&with).await, connect(&without).await);

    let name = |text| Name::new(text).expect("a name");
    let mut topology = Topology::new(name("orders"));
    topology.topics = vec![name("placed")];
    let declared = without.declare(&topology, Declare::Create).await;
    declared.expect("a queue without lanes needs nothing for them");
    topology.lanes = vec![name("high")];
    let refused = without.declare(&topology, Declare::Create).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Denied));
    let declared = with.declare(&topology, Declare::Create).await;
    declared.expect("a queue with lanes");

    let refused = without.inbox().await.err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::Denied));
    let (address, _inbox) = with.inbox().await.expect("an inbox");
    let mut urgent = message("x");
    urgent.priority = Some("high".into());
    for (to, delay) in [
        (Destination::Topic(name("placed")), 0),
        (Destination::Queue(name("orders"), Part::Lane(1)), 100),
        (Destination::Reply(address), 0),
    ] {
        let outgoing = Outgoing {
            to,
            envelope: urgent.clone(),
            delay: Duration::from_millis(delay),
            dedup_window: None,
        };
        let answer = with.publish(vec![outgoing]).await.pop();
        answer.expect("an answer").expect("a confirm");
    }
    let lane = Subscription {
        topology: Arc::new(topology),
        declare: Declare::Create,
        part: Part::Lane(1),
        ownership: None,
        prefetch: 8,
        lock: Duration::from_secs(30),
        suspect_returns: 2,
        limits: Limits::default(),
    };
    let (source, settler) = with.subscribe(lane).await.expect("a lane");
    let mut taker = crate::rig::Taker { source, settler };
    let both = taker.exactly(2).await;
    taker.complete(both).await;
}

/// With what `docs/security.md` gives a service, the starts of its suspects are noted.
#[tokio::test]
async fn whoever_may_have_no_queue_for_a_suspect_counts_its_returns() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let url = broker.url();
    let host = url.rsplit('@').next().expect("a host").to_owned();
    for (user, own, noted) in [("noting", r"(\.[0-9a-f]+)?", true), ("counting", "", false)] {
        let mut rig = Rig::on(&url).await;
        let queue = rig.queue().replace('.', r"\.");
        let service =
            format!(r"{queue}|{queue}\.dlq|{queue}\.quarantine{own}|longshore\.delay\..+");
        let write = format!(r"^(amq\.default|{queue}|{queue}\.quarantine|longshore\.delay\..+)$");
        let service = format!("^({service})$");
        let add = ["add_user", user, "secret"];
        broker.rabbitmqctl(&add).await.expect("a user");
        let permit = ["set_permissions", user, &service, &write, &service];
        broker.rabbitmqctl(&permit).await.expect("permissions");
        rig.publish(["x"]).await;
        for attempt in 1..=2 {
            assert_eq!(rig.subscribe().await.one().await.attempt, attempt);
        }
        rig.transport = connect(&format!("amqp://{user}:secret@{host}")).await;
        let held = rig.subscribe().await.one().await;
        assert_eq!((held.attempt, held.suspect), (3, noted), "{user}");
        let mut taker = rig.subscribe().await;
        let held = taker.one().await;
        assert_eq!(held.attempt, if noted { 3 } else { 4 }, "{user}");
        if noted {
            taker.start(&held).await.expect("noted");
        }
        taker.complete(vec![held]).await;
    }
}
