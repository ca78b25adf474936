//! P7: dead letters are complete.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use longshore_core::{DeadLetter, Delivery, Reason, Text, Topology, Verdict, defaults};

use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement},
    message::{all_to, assert_same, laden, message, number, numbered, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p7_a_dead_letter_keeps_everything_and_says_why,
    p7_every_reason_keeps_its_word,
    p7_the_detail_is_cut_at_4_kib_between_characters,
    p7_the_attempts_of_a_dead_letter_are_its_starts,
    p7_a_dead_letter_is_never_delivered,
    p7_dead_letters_are_listed_in_pages_the_oldest_first,
    p7_reading_dead_letters_removes_and_counts_nothing,
    p7_dead_letters_of_one_queue_are_not_those_of_another,
];

/// Takes one delivery and sets it aside.
pub(super) async fn set_aside(consumer: &mut Consumer, reason: Reason, detail: &str) -> Delivery {
    let delivery = consumer.next().await;
    let shown = Delivery {
        envelope: delivery.envelope.clone(),
        defect: None,
        ..delivery
    };
    let verdict = Verdict::DeadLetter {
        reason,
        detail: detail.to_owned(),
    };
    consumer
        .settle(delivery, verdict)
        .await
        .must("dead-lettering");
    shown
}

/// Every dead letter of a queue, once there are `count`.
pub(super) async fn letters(stage: &Stage, topology: &Topology, count: usize) -> Vec<DeadLetter> {
    let what = format!("{count} dead letters");
    stage
        .until_stats(topology, &what, |stats| stats.dead == count as u64)
        .await;
    let admin = stage.transport.admin();
    let list = admin
        .dead_letters(&topology.queue, None, count + 10)
        .await
        .must("listing");
    assert_eq!(list.len(), count, "dead letters listed");
    list
}

async fn p7_a_dead_letter_keeps_everything_and_says_why(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let detail = "it broke: \"ü\"\r\nsecond line";
    let before = SystemTime::now();
    set_aside(&mut consumer, Reason::Permanent, detail).await;
    let list = letters(&stage, &topology, 1).await;
    let letter = list.first().must("a dead letter");
    assert_same(&sent, &letter.envelope);
    assert_eq!(letter.reason, Reason::Permanent);
    assert_eq!(letter.detail, detail);
    assert_eq!(letter.attempts, 1);
    assert!(letter.redrivable);
    let at = letter.at.must("when it was set aside");
    let slack = Duration::from_secs(5);
    assert!(
        at + slack >= before && at <= SystemTime::now() + slack,
        "{at:?}, not now"
    );
}

async fn p7_every_reason_keeps_its_word(stage: Arc<Stage>) {
    let reasons = [
        Reason::Exhausted,
        Reason::Permanent,
        Reason::Crashed,
        Reason::Abandoned,
        Reason::Undecodable,
        Reason::NoHandler,
        Reason::Expired,
        Reason::TooLarge,
        Reason::Hostile,
        Reason::KeyMissing,
        Reason::Other("out_of-stock7".into()),
    ];
    let topology = stage.queue().await;
    stage
        .publish(all_to(&topology, numbered(0..reasons.len())))
        .await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut given = Vec::new();
    for reason in &reasons {
        let delivery = set_aside(&mut consumer, reason.clone(), "why").await;
        given.push((delivery.envelope.id, reason.clone()));
    }
    for letter in letters(&stage, &topology, reasons.len()).await {
        let (_, reason) = given
            .iter()
            .find(|(id, _)| *id == letter.envelope.id)
            .must("a known id");
        assert_eq!(letter.reason, *reason);
    }
}

async fn p7_the_detail_is_cut_at_4_kib_between_characters(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..1))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let detail = format!("x{}", "ü".repeat(512 * 1024));
    set_aside(&mut consumer, Reason::Exhausted, &detail).await;
    let list = letters(&stage, &topology, 1).await;
    let kept = &list[0].detail;
    assert!(kept.len() <= defaults::DETAIL_BYTES, "{} bytes", kept.len());
    assert!(
        kept.len() + 8 >= defaults::DETAIL_BYTES,
        "only {} bytes",
        kept.len()
    );
    let common = kept.trim_end_matches('…');
    assert!(detail.starts_with(common), "its beginning is kept");
}

async fn p7_the_attempts_of_a_dead_letter_are_its_starts(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..1))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..2 {
        let delivery = consumer.next().await;
        consumer.retry(delivery, Duration::ZERO).await;
    }
    set_aside(&mut consumer, Reason::Exhausted, "").await;
    assert_eq!(letters(&stage, &topology, 1).await[0].attempts, 3);
}

async fn p7_a_dead_letter_is_never_delivered(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..3))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..3 {
        set_aside(&mut consumer, Reason::Permanent, "").await;
    }
    drop(consumer);
    let mut heir = Consumer::of(&stage, &topology).await;
    heir.silent(stage.lock() + SILENCE).await;
    letters(&stage, &topology, 3).await;
}

async fn p7_dead_letters_are_listed_in_pages_the_oldest_first(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..100))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 100).await;
    let mut set_aside = Vec::new();
    for delivery in consumer.take(100).await {
        set_aside.push(number(&delivery.envelope));
        let verdict = Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        };
        // One at a time, so that their order is known.
        let mut answers = consumer
            .settler
            .settle(vec![settlement(delivery, verdict)])
            .await;
        answers.pop().must("an answer").must("dead-lettering");
    }
    letters(&stage, &topology, 100).await;
    let (mut pages, mut after): (Vec<usize>, Option<Text>) = (Vec::new(), None);
    let admin = stage.transport.admin();
    loop {
        let page = admin
            .dead_letters(&topology.queue, after.as_ref(), 30)
            .await
            .must("a page");
        assert!(page.len() <= 30, "{} on a page of 30", page.len());
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        pages.extend(page.iter().map(|letter| number(&letter.envelope)));
    }
    assert_eq!(
        pages, set_aside,
        "each once, in the order they were set aside"
    );
}

async fn p7_reading_dead_letters_removes_and_counts_nothing(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..3))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..3 {
        set_aside(&mut consumer, Reason::Permanent, "").await;
    }
    let first: Vec<_> = letters(&stage, &topology, 3)
        .await
        .into_iter()
        .map(|l| (l.id, l.attempts))
        .collect();
    let other = stage.open().await;
    for round in 0..25 {
        let admin = if round % 2 == 0 {
            other.admin()
        } else {
            stage.transport.admin()
        };
        let list = admin
            .dead_letters(&topology.queue, None, 10)
            .await
            .must("listing");
        let again: Vec<_> = list.into_iter().map(|l| (l.id, l.attempts)).collect();
        assert_eq!(again, first, "reading {round}");
    }
}

async fn p7_dead_letters_of_one_queue_are_not_those_of_another(stage: Arc<Stage>) {
    let (one, other) = (stage.queue().await, stage.queue().await);
    stage.publish(vec![to(&one, message("dead"))]).await;
    let mut consumer = Consumer::of(&stage, &one).await;
    set_aside(&mut consumer, Reason::Permanent, "").await;
    let letter = letters(&stage, &one, 1).await.remove(0);
    letters(&stage, &other, 0).await;
    let admin = stage.transport.admin();
    let ids = [letter.id];
    assert!(
        admin.redrive(&other.queue, &ids).await[0].is_err(),
        "redriven through another queue"
    );
    letters(&stage, &one, 1).await;
    letters(&stage, &other, 0).await;
}
