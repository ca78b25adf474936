//! Who owns what of a queue with sessions, and what only an owner may do.

mod rig;

use std::time::Duration;

use longshore_core::{Claim, Declare, ErrorKind, Part};

use rig::{Consumer, acquire, broker, ids, kind, lost, publish, sessions, subscription};

#[tokio::test(start_paused = true)]
async fn members_see_each_other_and_no_two_own_the_same() {
    let (broker, topology) = (broker(), sessions(4));
    let (first, second) = (broker.open(), broker.open());
    let one = first
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    assert_eq!(one.live().await.expect("an answer"), 1);
    let two = second
        .join(&topology, Declare::Verify, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    assert_eq!(one.live().await.expect("an answer"), 2);
    assert_eq!(one.free().await.expect("an answer"), [0, 1, 2, 3]);
    for claim in [Claim::Partition(2), Claim::Seat(0), Claim::Forwarder] {
        let owned = acquire(&*one, claim).await.expect("it is free");
        assert_eq!(owned.claim, claim);
        assert_eq!(acquire(&*two, claim).await, None);
        assert_eq!(kind(two.release(owned).await), Err(ErrorKind::Stale));
    }
    assert_eq!(two.free().await.expect("an answer"), [0, 1, 3]);
    let missing = two.acquire(Claim::Partition(4)).await;
    assert_eq!(kind(missing), Err(ErrorKind::Invalid));
    drop(one);
    assert_eq!(two.live().await.expect("an answer"), 1);
    assert_eq!(two.free().await.expect("an answer"), [0, 1, 2, 3]);
    let again = acquire(&*two, Claim::Partition(2))
        .await
        .expect("it is free");
    assert_eq!(again.token, 2);
    second.close(Duration::ZERO).await;
    assert_eq!(lost(&*two).await, [again]);
    assert_eq!(kind(two.live().await), Err(ErrorKind::Closed));
    let third = first
        .join(&topology, Declare::Verify, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    assert_eq!(third.live().await.expect("an answer"), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_of_now_reads_a_partition_and_one_source_at_a_time() {
    let (broker, topology) = (broker(), sessions(2));
    let transport = broker.open();
    let member = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    let first = acquire(&*member, Claim::Partition(0))
        .await
        .expect("it is free");
    let part = Part::Partition { index: 0, of: 2 };
    let refused = |part, ownership| {
        let subscription = subscription(&topology, part, ownership);
        let transport = transport.clone();
        async move { kind(transport.subscribe(subscription).await.map(drop)) }
    };
    assert_eq!(refused(part, None).await, Err(ErrorKind::Invalid));
    let other = Part::Partition { index: 1, of: 2 };
    assert_eq!(refused(other, Some(first)).await, Err(ErrorKind::Invalid));
    let consumer = Consumer::of_partition(&transport, &topology, first).await;
    assert_eq!(refused(part, Some(first)).await, Err(ErrorKind::Invalid));
    drop(consumer);
    member.release(first).await.expect("it is ours");
    assert_eq!(refused(part, Some(first)).await, Err(ErrorKind::Stale));
    let second = acquire(&*member, first.claim).await.expect("it is free");
    assert_eq!(refused(part, Some(first)).await, Err(ErrorKind::Stale));
    Consumer::of_partition(&transport, &topology, second).await;
}

#[tokio::test(start_paused = true)]
async fn the_plain_queue_is_read_in_order_by_its_forwarder_alone() {
    let (broker, topology) = (broker(), sessions(2));
    let transport = broker.open();
    let plain = Part::Lane(0);
    let member = transport
        .join(&topology, Declare::Create, longshore_core::defaults::LOCK)
        .await
        .expect("joins");
    let anybody = transport
        .subscribe(subscription(&topology, plain, None))
        .await;
    assert_eq!(kind(anybody.map(drop)), Err(ErrorKind::Invalid));
    for at in 0..5 {
        publish(&transport, &topology, None, &at.to_string()).await;
    }
    for _ in 0..4 {
        let owned = acquire(&*member, Claim::Forwarder)
            .await
            .expect("it is free");
        let mut consumer = Consumer::of(&transport, &topology, plain, Some(owned)).await;
        let taken = consumer.take(4).await;
        assert_eq!(ids(&taken), ["0", "1", "2", "3"]);
        // Nothing starts here, so nothing is counted and nobody is suspect.
        assert!(taken.iter().all(|d| d.attempt == 1 && !d.suspect));
        consumer.release(&taken[0], 1).await.expect("it is held");
        consumer.release(&taken[2], 1).await.expect("it is held");
        consumer.release(&taken[1], 1).await.expect("it is held");
        assert_eq!(ids(&consumer.take(3).await), ["0", "1", "2"]);
        broker.lose_locks();
        assert_eq!(lost(&*member).await, [owned]);
        assert_eq!(consumer.lost().await.len(), 4);
        assert_eq!(consumer.end().await, ErrorKind::Stale);
        assert_eq!(consumer.complete(&taken[3]).await, Err(ErrorKind::Stale));
    }
}
