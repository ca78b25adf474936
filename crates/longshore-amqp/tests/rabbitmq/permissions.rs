//! What a user may not do is said so, and not tried for ever.

use longshore_core::{Declare, ErrorKind};
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
