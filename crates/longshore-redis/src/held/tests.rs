use std::task::{Context, Poll, Waker};

use longshore_core::{Envelope, ErrorKind, Part};

use super::*;

fn delivery(ms: u64, alone: bool) -> (Held, Delivery) {
    let id = EntryId { ms, sequence: 0 };
    let held = Held {
        id,
        attempt: 1,
        base: 0,
        alone,
        certain_until: Duration::ZERO,
        settling: false,
    };
    let delivery = Delivery {
        envelope: Envelope::default(),
        receipt: Receipt {
            scope: 0,
            tag: [0, 0],
        },
        part: Part::Lane(0),
        attempt: 1,
        suspect: alone,
        alone: false,
        standing: longshore_core::Standing::Unknown,
        defect: None,
    };
    (held, delivery)
}

fn arrive(table: &Table, reserved: usize, ids: impl IntoIterator<Item = u64>) -> usize {
    let deliveries = ids.into_iter().map(|ms| delivery(ms, false)).collect();
    table.arrive(reserved, deliveries).len()
}

fn take(table: &Table, max: usize) -> Poll<Result<Vec<Receipt>>> {
    let mut into = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let polled = table.poll_receive(&mut cx, max, &mut into);
    polled.map_ok(|count| {
        assert_eq!(count, into.len());
        into.iter().map(|d| d.receipt).collect()
    })
}

fn lost(table: &Table) -> Vec<Receipt> {
    let mut into = Vec::new();
    let _ = table.poll_lost(&mut Context::from_waker(Waker::noop()), &mut into);
    into
}

fn taken(table: &Table, max: usize) -> Vec<Receipt> {
    match take(table, max) {
        Poll::Ready(Ok(receipts)) => receipts,
        other => panic!("nothing to take: {other:?}"),
    }
}

#[test]
fn held_and_reserved_together_never_exceed_the_prefetch() {
    let table = Table::new(1, 4);
    assert_eq!(table.reserve_for_read(), 4);
    assert_eq!(table.reserve(1), 0);
    assert_eq!(arrive(&table, 4, [1, 2, 3]), 0);
    assert_eq!(table.reserve(5), 1);
    table.unreserve(1);
    table.set_prefetch(2);
    assert_eq!(table.reserve(5), 0);
    let first = taken(&table, 1)[0];
    table.remove(&[first.tag[0]]);
    assert_eq!(
        table.reserve(5),
        0,
        "what is above the new prefetch drains first"
    );
}

#[test]
fn a_full_buffer_is_refilled_in_quarters_and_an_empty_one_at_once() {
    let table = Table::new(1, 8);
    assert_eq!(table.reserve_for_read(), 8);
    arrive(&table, 8, 1..=8);
    let first = taken(&table, 7);
    table.remove(&[first[0].tag[0]]);
    assert_eq!(table.reserve_for_read(), 0);
    table.remove(&[first[1].tag[0]]);
    assert_eq!(table.reserve_for_read(), 2);
    table.unreserve(2);
    taken(&table, 8);
    table.remove(&[first[2].tag[0]]);
    table.set_suspect_waits(true);
    assert_eq!(table.reserve_for_read(), 2, "one place is the suspect's");
    table.unreserve(2);
    table.set_suspect_waits(false);
    assert_eq!(table.reserve_for_read(), 3);
}

#[test]
fn once_stopped_nothing_enters_and_what_was_there_can_be_taken() {
    let table = Table::new(1, 4);
    arrive(&table, table.reserve(4), [1, 2]);
    let late = table.reserve(2);
    table.stop();
    assert_eq!(arrive(&table, late, [3, 4]), 2, "both are refused");
    assert_eq!(taken(&table, 8).len(), 2);
    assert!(taken(&table, 8).is_empty(), "0 means that it is over");
    table.end(Error::new(ErrorKind::Closed, "closed"));
    assert!(matches!(take(&table, 8), Poll::Ready(Err(_))));
}

#[test]
fn a_lock_is_reported_lost_once_and_only_to_whoever_has_the_delivery() {
    let table = Table::new(1, 4);
    arrive(&table, table.reserve(4), [1, 2, 3]);
    let got = taken(&table, 2);
    table.lock().held.get_mut(&1).expect("held").settling = true;
    table.lose(&[0, 1, 2]);
    table.lose(&[0, 1, 2]);
    assert_eq!(
        lost(&table),
        [got[0]],
        "1 is being settled, 2 was never taken"
    );
    assert!(lost(&table).is_empty());
    assert!(take(&table, 8).is_pending());
}

#[test]
fn an_entry_that_comes_back_ends_its_earlier_lock() {
    let table = Table::new(1, 4);
    arrive(&table, table.reserve(4), [1]);
    let first = taken(&table, 1)[0];
    arrive(&table, table.reserve(1), [1]);
    let second = taken(&table, 1)[0];
    assert_ne!(first, second);
    assert_eq!(lost(&table), [first]);
    assert_eq!(table.lock().held.len(), 1);
}
