//! Publish, receive, settle.

use std::time::Duration;

use longshore_core::{Destination, ErrorKind, Name, Part, Reason, Settlement, Verdict};

use crate::rig::{Rig, body, message};

#[tokio::test]
async fn a_message_is_published_received_and_completed() {
    let rig = Rig::new().await;
    rig.publish(["hello"]).await;
    let mut taker = rig.subscribe().await;
    let delivery = taker.one().await;
    assert_eq!((body(&delivery), delivery.attempt), ("hello", 1));
    let again = Settlement::complete(delivery.receipt, 1);
    taker.complete(vec![delivery]).await;
    let refused = taker.settle_one(again).await.expect_err("settled twice");
    assert_eq!(refused.error.kind(), ErrorKind::Stale);
    taker.nothing().await;
}

#[tokio::test]
async fn ten_thousand_messages_arrive_once_each_in_order_and_are_all_acknowledged() {
    let rig = Rig::new().await;
    let mut taker = rig.subscribe().await;
    let publish = async {
        for batch in 0..20 {
            rig.publish((0..500).map(|n| (batch * 500 + n).to_string()))
                .await;
        }
    };
    let receive = async {
        let mut next = 0;
        while next < 10_000 {
            let some = taker.some(64).await;
            for delivery in &some {
                assert_eq!(body(delivery), next.to_string());
                next += 1;
            }
            // Out of order, to pass through single acknowledgements and `multiple` ones.
            let (odd, even): (Vec<_>, Vec<_>) =
                some.into_iter().partition(|d| d.receipt.tag[0] % 3 == 1);
            taker.complete(even).await;
            taker.complete(odd).await;
        }
        taker.nothing().await;
        drop(taker);
    };
    tokio::join!(publish, receive);
    let mut taker = rig.subscribe().await;
    taker.nothing().await;
}

#[tokio::test]
async fn publishing_to_no_queue_is_told_of_exactly_that_message() {
    let rig = Rig::new().await;
    let nowhere = Name::new(format!("{}-nowhere", rig.queue())).expect("a name");
    let mut batch = Vec::new();
    for n in 0..200 {
        let mut outgoing = rig.outgoing(message(&n.to_string()));
        // Pairs of equal ids: only the queue tells them apart.
        outgoing.envelope.id = (n / 4).to_string().into();
        if n % 2 == 1 {
            outgoing.to = Destination::Queue(nowhere.clone(), Part::Lane(0));
        }
        batch.push(outgoing);
    }
    let answers = rig.transport.publish(batch).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 2 {
            0 => drop(answer.expect("an accepted message")),
            _ => assert_eq!(answer.expect_err("refused").kind(), ErrorKind::NoSuchQueue),
        }
    }
}

#[tokio::test]
async fn a_retry_is_a_new_attempt_and_a_release_is_not() {
    let rig = Rig::new().await;
    rig.publish(["x"]).await;
    let mut taker = rig.subscribe().await;
    let mut id = None;
    for attempt in 1..=4 {
        let delivery = taker.one().await;
        assert_eq!(delivery.attempt, attempt);
        assert_eq!(
            *id.get_or_insert(delivery.envelope.id.clone()),
            delivery.envelope.id
        );
        let after = std::time::Duration::ZERO;
        taker.settle(delivery, Verdict::Retry { after }).await;
        let delivery = taker.one().await;
        assert_eq!(delivery.attempt, attempt + 1);
        taker
            .settle(
                delivery,
                Verdict::Release {
                    after: Duration::ZERO,
                },
            )
            .await;
    }
    let delivery = taker.one().await;
    assert_eq!(delivery.attempt, 5);
    let reason = Reason::Exhausted;
    let detail = "why".to_owned();
    taker
        .settle(delivery, Verdict::DeadLetter { reason, detail })
        .await;
    taker.nothing().await;
}
