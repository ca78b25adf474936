//! Stopping, dropping, and another prefetch while running.

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Settlement, Verdict};
use longshore_testing::brokers::{Broker, BrokerKind};

use crate::rig::{Rig, body};

#[tokio::test]
async fn what_has_arrived_before_a_stop_can_be_taken_and_settled_and_then_it_ends() {
    let rig = Rig::new().await;
    rig.publish((0..100).map(|n| n.to_string())).await;
    let mut subscription = rig.subscription();
    subscription.prefetch = 10;
    let mut taker = rig.subscribe_as(subscription).await;
    let mut held = taker.exactly(4).await;
    taker.source.stop();
    loop {
        let some = taker.some(64).await;
        if some.is_empty() {
            break;
        }
        held.extend(some);
    }
    assert_eq!(held.len(), 10, "the prefetch and no more");
    let late = held.split_off(5);
    taker.complete(held).await;
    for delivery in late {
        assert_eq!(delivery.attempt, 1);
        taker
            .settle(
                delivery,
                Verdict::Release {
                    after: Duration::ZERO,
                },
            )
            .await;
    }
    let mut other = rig.subscribe().await;
    let rest = other.exactly(64).await;
    assert!(rest.iter().all(|d| d.attempt == 1));
}

#[tokio::test]
async fn a_dropped_source_gives_back_what_it_held_within_a_second() {
    let rig = Rig::new().await;
    rig.publish(["a", "b"]).await;
    let mut taker = rig.subscribe().await;
    let held = taker.exactly(2).await;
    let settler = taker.settler.clone();
    let from = Instant::now();
    drop(taker);
    let mut other = rig.subscribe().await;
    let back = other.exactly(2).await;
    assert!(
        from.elapsed() < Duration::from_secs(1),
        "{:?}",
        from.elapsed()
    );
    assert_eq!((body(&back[0]), back[0].attempt), ("a", 2));
    // The old receipts are worth nothing.
    let batch = held
        .iter()
        .map(|d| Settlement::complete(d.receipt, 1))
        .collect();
    for answer in settler.settle(batch).await {
        assert_eq!(answer.expect_err("stale").error.kind(), ErrorKind::Stale);
    }
    other.complete(back).await;
    other.nothing().await;
}

#[tokio::test]
async fn the_prefetch_grows_and_shrinks_and_is_never_exceeded() {
    let rig = Rig::new().await;
    rig.publish((0..60).map(|n| n.to_string())).await;
    let mut subscription = rig.subscription();
    subscription.prefetch = 4;
    let mut taker = rig.subscribe_as(subscription).await;
    let mut held = taker.exactly(4).await;
    taker.nothing().await;
    taker.source.set_prefetch(10).expect("another prefetch");
    held.extend(taker.exactly(6).await);
    taker.nothing().await;
    taker.source.set_prefetch(3).expect("another prefetch");
    tokio::time::sleep(Duration::from_millis(200)).await;
    taker.complete(held.split_off(2)).await;
    held.extend(taker.exactly(1).await);
    taker.nothing().await;
    taker.complete(held).await;
    let held = taker.exactly(3).await;
    taker.nothing().await;
    taker.complete(held).await;
    let zero = taker.source.set_prefetch(0).expect_err("refused");
    assert_eq!(zero.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_crosses_a_stop_is_given_back_at_no_cost() {
    let rig = Rig::new().await;
    rig.publish(["x"]).await;
    for attempt in 1..=40 {
        let process = crate::rig::connect(&rig.url).await;
        let subscribed = process.subscribe(rig.subscription()).await;
        let (source, settler) = subscribed.expect("a subscription");
        let mut taker = crate::rig::Taker { source, settler };
        let delivery = taker.one().await;
        assert_eq!(delivery.attempt, attempt);
        // Its copy comes back to this very consumer, or does not, just while that stops.
        let after = Duration::ZERO;
        taker.settle(delivery, Verdict::Retry { after }).await;
        taker.source.stop();
        loop {
            let left = taker.some(64).await;
            if left.is_empty() {
                break;
            }
            for delivery in left {
                taker
                    .settle(
                        delivery,
                        Verdict::Release {
                            after: Duration::ZERO,
                        },
                    )
                    .await;
            }
        }
        drop(taker);
        process.close(Duration::from_secs(2)).await;
    }
}

/// What crossed the cancellation returns only with its channel: that must not wait for the source to
/// be dropped, at the end of a long stop.
#[tokio::test]
async fn the_channels_of_a_stopped_source_close_as_soon_as_everything_is_settled() {
    let broker = Broker::start(BrokerKind::RabbitMq).await.expect("a broker");
    let rig = Rig::on(&broker.url()).await;
    let channels = async || {
        let listed = broker.rabbitmqctl(&["--quiet", "list_channels", "pid"]);
        let listed = listed.await.expect("a list");
        listed.lines().filter(|line| line.starts_with('<')).count()
    };
    rig.publish(["a", "b"]).await;
    let before = channels().await;
    let mut taker = rig.subscribe().await;
    let mut held = taker.exactly(2).await;
    let from = Instant::now();
    while channels().await < before + 2 {
        let waited = from.elapsed();
        assert!(waited < Duration::from_secs(30), "a lane and a quarantine");
    }
    taker.source.stop();
    taker.complete(held.split_off(1)).await;
    assert!(taker.some(64).await.is_empty());
    assert!(channels().await > before, "one is not settled yet");
    taker.complete(held).await;
    let from = Instant::now();
    while channels().await > before {
        assert!(from.elapsed() < Duration::from_secs(5), "still open");
    }
    drop(taker);
}
