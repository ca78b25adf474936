//! What others may do, and what they may not spoil.

use longshore_core::Claim;

use super::worker::Orders;
use crate::{raw::Raw, rig::body};

/// A header table with these entries, each with its type and value as they stand on the wire.
fn table(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut table = Vec::new();
    for (name, kind, value) in entries {
        table.push(u8::try_from(name.len()).expect("short"));
        table.extend(name.bytes());
        table.push(*kind);
        table.extend_from_slice(value);
    }
    table
}

#[tokio::test]
async fn forged_markers_stop_no_partition() {
    let orders = Orders::new(1).await;
    let marker = format!("{}.s1.0.marker", orders.topology.queue);
    let mut raw = Raw::connect(&orders.url).await;
    // No marker at all, then the highest token there is with a table that is none.
    raw.publish_with_table(&marker, &table(&[("token", b'l', &[0x7f; 8])]), b"x")
        .await;
    let worker = orders.worker().await;
    let owned = worker.own(Claim::Partition(0)).await;
    // Far below 0x7f7f…: what is not of its type is no marker.
    let mut last = owned.token;
    assert!(last < u64::from(u32::MAX) * 1_000);
    worker.membership.release(owned).await.expect("released");
    let highest = i64::MAX.to_be_bytes();
    let headers = table(&[("token", b'l', &highest), ("started", b'S', &[0; 4])]);
    let mut properties = u32::try_from(headers.len())
        .expect("small")
        .to_be_bytes()
        .to_vec();
    properties.extend(headers);
    properties.extend(b"\x10longshore.marker");
    let flags = 1 << 13 | 1 << 5;
    raw.publish("", marker.as_bytes(), flags, &properties, b"")
        .await;
    for _ in 0..2 {
        orders.publish(0, [7]).await;
        let (owned, mut taker) = worker.take(0).await;
        let grown = last < owned.token && owned.token < i64::MAX as u64;
        assert!(grown, "{} after {last}", owned.token);
        last = owned.token;
        let held = taker.one().await;
        assert_eq!(body(&held), "7");
        let noted = taker.settler.start(&[(held.receipt, 2)]).await;
        assert!(noted.iter().all(Result::is_ok), "{noted:?}");
        taker.complete(vec![held]).await;
        worker.hand_over(owned, taker, Vec::new()).await;
    }
}

#[tokio::test]
async fn a_plain_consumer_keeps_a_partition_from_being_owned_until_it_goes() {
    let orders = Orders::new(1).await;
    let worker = orders.worker().await;
    let name = format!("{}.s1.0", orders.topology.queue);
    let mut stranger = Raw::connect(&orders.url).await;
    stranger.consume(&name).await;
    worker.until_free(&[]).await;
    assert_eq!(worker.acquire(Claim::Partition(0)).await, None);
    drop(stranger);
    worker.until_free(&[0]).await;
    worker.own(Claim::Partition(0)).await;
}
