//! P3: one settlement.

use std::{sync::Arc, time::Duration};

use longshore_core::{Reason, Receipt, Settlement, Verdict};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, assert_stale, settlement, subscription},
    message::{all_to, message, number, numbered, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p3_what_is_completed_is_gone_for_ever,
    p3_settlements_come_in_any_order,
    p3_a_second_settlement_is_stale_and_touches_nothing,
    p3_an_old_receipt_never_settles_the_delivery_that_followed,
    p3_the_same_receipt_twice_in_a_batch_counts_once,
    p3_a_batch_of_different_verdicts_is_answered_in_order,
    p3_the_receipt_of_another_subscription_is_stale,
    p3_a_dead_source_cannot_settle_what_others_hold_now,
    p3_a_receipt_that_never_was_is_stale,
];

/// All but the completion; a partition knows no retry.
pub(super) fn verdicts() -> [Verdict; 3] {
    let dead = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: "late".into(),
    };
    let retry = Verdict::Retry {
        after: Duration::ZERO,
    };
    [
        retry,
        dead,
        Verdict::Release {
            after: Duration::ZERO,
        },
    ]
}

async fn p3_what_is_completed_is_gone_for_ever(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..20))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.drain(20).await;
    drop(consumer);
    let other = stage.open().await;
    let mut heir = Consumer::on(&*other, subscription(&stage, &topology)).await;
    heir.silent(stage.lock() + Duration::from_millis(1500))
        .await;
    stage
        .until_stats(&topology, "an empty queue", |stats| {
            stats.ready == 0 && stats.dead == 0 && stats.in_flight.unwrap_or(0) == 0
        })
        .await;
}

async fn p3_settlements_come_in_any_order(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..9))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut held = consumer.take(9).await;
    for at in [8, 0, 4, 4, 1] {
        let delivery = held.remove(at);
        consumer.complete(delivery).await;
    }
    let mut left: Vec<_> = held.iter().map(|d| number(&d.envelope)).collect();
    drop(consumer);
    let mut heir = Consumer::of(&stage, &topology).await;
    let mut back: Vec<_> = heir
        .drain(4)
        .await
        .iter()
        .map(|d| number(&d.envelope))
        .collect();
    left.sort_unstable();
    back.sort_unstable();
    assert_eq!(back, left, "only what was not completed comes back");
    heir.silent(SILENCE).await;
}

async fn p3_a_second_settlement_is_stale_and_touches_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for second in verdicts() {
        stage.publish(vec![to(&topology, message("once"))]).await;
        let delivery = consumer.next().await;
        let (receipt, attempt, envelope) = (
            delivery.receipt,
            delivery.attempt,
            delivery.envelope.clone(),
        );
        consumer.complete(delivery).await;
        let second = Settlement::new(receipt, attempt, second, envelope);
        let mut answers = consumer.settler.settle(vec![second]).await;
        assert_stale(answers.pop().must("an answer"));
    }
    consumer.silent(SILENCE).await;
    assert_eq!(stage.stats(&topology).await.dead, 0);
    for first in verdicts() {
        stage.publish(vec![to(&topology, message("again"))]).await;
        let delivery = consumer.next().await;
        let again = Settlement::complete(delivery.receipt, delivery.attempt);
        let comes_back = !matches!(first, Verdict::DeadLetter { .. });
        consumer.settle(delivery, first).await.must("settling");
        let mut answers = consumer.settler.settle(vec![again]).await;
        assert_stale(answers.pop().must("an answer"));
        if comes_back {
            let back = consumer.next().await;
            consumer.complete(back).await;
        }
    }
    assert_eq!(stage.stats(&topology).await.dead, 1);
}

async fn p3_an_old_receipt_never_settles_the_delivery_that_followed(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..4))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 1).await;
    let first = consumer.next().await;
    let (old, envelope) = (first.receipt, first.envelope.clone());
    consumer.complete(first).await;
    let second = consumer.next().await;
    for verdict in verdicts() {
        let late = Settlement::new(old, 1, verdict, envelope.clone());
        let mut answers = consumer.settler.settle(vec![late]).await;
        assert_stale(answers.pop().must("an answer"));
    }
    let mut answers = consumer
        .settler
        .settle(vec![Settlement::complete(old, 1)])
        .await;
    assert_stale(answers.pop().must("an answer"));
    consumer.silent(Duration::from_millis(200)).await;
    consumer.complete(second).await;
    consumer.drain(2).await;
    consumer.silent(SILENCE).await;
}

async fn p3_the_same_receipt_twice_in_a_batch_counts_once(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..2))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let held = consumer.take(2).await;
    let receipts = [held[0].receipt, held[0].receipt, held[1].receipt];
    let batch = receipts.map(|receipt| Settlement::complete(receipt, 1));
    let mut answers = consumer.settler.settle(batch.into()).await.into_iter();
    answers.next().must("an answer").must("completing");
    assert_stale(answers.next().must("an answer"));
    answers
        .next()
        .must("an answer")
        .must("completing the neighbour");
}

async fn p3_a_batch_of_different_verdicts_is_answered_in_order(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..5))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut held = consumer.take(5).await;
    held.sort_by_key(|d| number(&d.envelope));
    let stale = Settlement::complete(held[4].receipt, 1);
    let done = held.pop().must("the fifth");
    consumer.complete(done).await;
    let [retry, dead, release] = verdicts();
    let given = [Verdict::Complete, retry, dead, release];
    let mut batch: Vec<_> = held
        .into_iter()
        .zip(given)
        .map(|(d, v)| settlement(d, v))
        .collect();
    batch.insert(2, stale);
    let answers = consumer.settler.settle(batch).await;
    let fine: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, true, false, true, true], "{answers:?}");
    let mut back: Vec<_> = consumer.drain(2).await;
    back.sort_by_key(|d| number(&d.envelope));
    let back: Vec<_> = back
        .iter()
        .map(|d| (number(&d.envelope), d.attempt))
        .collect();
    assert_eq!(back, [(1, 2), (3, 1)], "the retried and the released one");
    stage
        .until_stats(&topology, "one dead letter", |stats| stats.dead == 1)
        .await;
    consumer.silent(SILENCE).await;
}

async fn p3_the_receipt_of_another_subscription_is_stale(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..2))).await;
    let mut owner = Consumer::with_prefetch(&stage, &topology, 1).await;
    let mut thief = Consumer::with_prefetch(&stage, &topology, 1).await;
    let owned = owner.next().await;
    let other = thief.next().await;
    let mut batch = vec![Settlement::complete(owned.receipt, 1)];
    for verdict in verdicts() {
        batch.push(Settlement::new(
            owned.receipt,
            1,
            verdict,
            owned.envelope.clone(),
        ));
    }
    for answer in thief.settler.settle(batch).await {
        assert_stale(answer);
    }
    thief.complete(other).await;
    thief.silent(SILENCE).await;
    owner.complete(owned).await;
    assert_eq!(stage.stats(&topology).await.dead, 0);
}

async fn p3_a_dead_source_cannot_settle_what_others_hold_now(stage: Arc<Stage>) {
    let other = stage.open().await;
    for verdict in verdicts() {
        let topology = stage.queue().await;
        stage.publish(vec![to(&topology, message("held"))]).await;
        let mut dying = Consumer::of(&stage, &topology).await;
        let late = dying.next().await;
        let Consumer { source, settler } = dying;
        drop(source);
        let mut heir = Consumer::on(&*other, subscription(&stage, &topology)).await;
        let held = heir.next().await;
        let mut answers = settler.settle(vec![settlement(late, verdict)]).await;
        assert_stale(answers.pop().must("an answer"));
        heir.silent(SILENCE).await;
        assert!(
            heir.lost().await.is_empty(),
            "the late settlement took the lock away"
        );
        heir.complete(held).await;
        heir.silent(stage.lock() + SILENCE).await;
        assert_eq!(stage.stats(&topology).await.dead, 0);
    }
}

async fn p3_a_receipt_that_never_was_is_stale(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("kept"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let held = consumer.next().await;
    let real = held.receipt;
    let made_up = [
        Receipt {
            scope: real.scope.wrapping_add(1),
            ..real
        },
        Receipt {
            tag: [
                real.tag[0].wrapping_add(1000),
                real.tag[1].wrapping_add(1000),
            ],
            ..real
        },
        Receipt {
            scope: u64::MAX,
            tag: [u64::MAX; 2],
        },
        Receipt {
            scope: 0,
            tag: [0; 2],
        },
    ];
    for receipt in made_up.into_iter().filter(|receipt| *receipt != real) {
        let mut answers = consumer
            .settler
            .settle(vec![Settlement::complete(receipt, 1)])
            .await;
        assert_stale(answers.pop().must("an answer"));
    }
    consumer.complete(held).await;
}
