//! Stopping, dropping, and another prefetch while running.

use std::time::{Duration, Instant};

use longshore_core::{ErrorKind, Settlement, Verdict};

use crate::rig::{Rig, body, message};

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
        taker.settle(delivery, Verdict::Release).await;
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
                taker.settle(delivery, Verdict::Release).await;
            }
        }
        drop(taker);
        process.close(Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crosses_a_stop_is_elsewhere_as_soon_as_the_rest_is_settled() {
    let rig = Rig::new().await;
    for _ in 0..10 {
        let mut taker = rig.subscribe().await;
        let sending = async {
            for n in 0..60 {
                let batch = vec![rig.outgoing(message(&n.to_string()))];
                for answer in rig.transport.publish(batch).await {
                    answer.expect("a confirm");
                }
            }
        };
        let taking = async {
            let mut done = 0;
            while done < 20 {
                let some = taker.some(1).await;
                done += some.len();
                taker.complete(some).await;
            }
            taker.source.stop();
            loop {
                let some = taker.some(64).await;
                if some.is_empty() {
                    break done;
                }
                done += some.len();
                taker.complete(some).await;
            }
        };
        let ((), mut done) = tokio::join!(sending, taking);
        // The stopped source lives on, as it does until the deadline of a stop.
        let mut other = rig.subscribe().await;
        let from = Instant::now();
        while done < 60 {
            let some = other.some(64).await;
            done += some.len();
            other.complete(some).await;
        }
        let took = from.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        drop((taker, other));
    }
}
