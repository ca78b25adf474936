//! P12: an id inside its dedup window, as its publishers see it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use longshore_core::{
    Delivery, Envelope, ErrorKind, MarkChange, MarkWrite, Outgoing, Published, Reason, Settlement,
    Standing, Text, Topology, Transport, Verdict, mark_name,
};
use tokio::time::Instant;

use super::dead_letters::letters;
use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement, subscription},
    message::{assert_same, laden, message, number, to},
    must::Must,
    stage::{GRACE, PATIENCE, SILENCE, Stage, TICK},
};

cases![
    p12_a_duplicate_of_what_waits_or_runs_is_told_and_not_stored needs DedupAtPublish,
    p12_of_many_publishers_at_once_one_is_accepted needs DedupAtPublish,
    p12_the_same_id_twice_in_a_batch_is_one_message needs DedupAtPublish,
    p12_a_message_that_waits_for_its_retry_holds_its_id needs DedupAtPublish & AtomicSettle,
    p12_what_is_given_back_holds_its_id needs DedupAtPublish,
    p12_the_death_of_its_process_frees_no_id needs DedupAtPublish,
    p12_an_id_is_known_for_its_window_after_completion needs DedupAtPublish & AtomicSettle,
    p12_a_dead_letter_has_let_go_of_its_id needs DedupAtPublish & AtomicSettle,
    p12_a_delayed_message_holds_its_id_while_it_waits needs DedupAtPublish & Delays,
    p12_what_was_refused_holds_no_id needs DedupAtPublish,
];

pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// On its way, with its id to be taken.
pub(super) fn once(outgoing: Outgoing, window: Duration) -> Outgoing {
    Outgoing {
        dedup_window: Some(window),
        ..outgoing
    }
}

/// Publishes and answers what was found.
pub(super) async fn found(transport: &dyn Transport, outgoing: Outgoing) -> Published {
    let mut answers = transport.publish(vec![outgoing]).await;
    assert_eq!(answers.len(), 1, "one answer for each message");
    answers.pop().must("an answer").must("publishing")
}

/// A settlement with what becomes of an id that was taken at publish.
pub(super) fn marked(delivery: Delivery, verdict: Verdict, change: MarkChange) -> Settlement {
    let envelope = &delivery.envelope;
    let name = mark_name(envelope.key.as_deref(), &envelope.id);
    let mut settlement = settlement(delivery, verdict);
    settlement.mark = Some(MarkWrite {
        name,
        owner: Text::new(),
        change,
    });
    settlement
}

/// Completed, for this window.
pub(super) fn done(window: Duration) -> MarkChange {
    MarkChange::Done {
        window,
        reply: None,
    }
}

pub(super) async fn duplicate(stage: &Stage, outgoing: &Outgoing) {
    let answer = found(&*stage.transport, outgoing.clone()).await;
    assert_eq!(answer, Published::Duplicate);
}

pub(super) async fn accepted(stage: &Stage, outgoing: &Outgoing) {
    let answer = found(&*stage.transport, outgoing.clone()).await;
    assert_eq!(answer, Published::Accepted);
}

async fn p12_a_duplicate_of_what_waits_or_runs_is_told_and_not_stored(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let other = stage.open().await;
    let sent = once(to(&topology, laden()), WINDOW);
    accepted(&stage, &sent).await;
    // The same id is enough, whatever else has changed.
    let mut again = sent.clone();
    again.envelope.body = "another".into();
    for _ in 0..3 {
        assert_eq!(found(&*other, again.clone()).await, Published::Duplicate);
        duplicate(&stage, &sent).await;
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delivery = consumer.next().await;
    assert_same(&sent.envelope, &delivery.envelope);
    assert_eq!(delivery.standing, Standing::Held);
    assert_eq!(found(&*other, again.clone()).await, Published::Duplicate);
    consumer.silent(SILENCE).await;
    consumer.complete(delivery).await;
    stage
        .until_stats(&topology, "an empty queue", |s| s.ready == 0)
        .await;
}

async fn p12_of_many_publishers_at_once_one_is_accepted(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let other = stage.open().await;
    for round in 0..5 {
        let sent = once(to(&topology, message(round.to_string())), WINDOW);
        let mut publishing = Vec::new();
        for at in 0..24 {
            let transport = if at % 2 == 0 {
                stage.transport.clone()
            } else {
                other.clone()
            };
            let sent = sent.clone();
            publishing.push(tokio::spawn(async move { found(&*transport, sent).await }));
        }
        let mut stored = 0;
        for answer in publishing {
            stored += usize::from(answer.await.must("a publisher") == Published::Accepted);
        }
        assert_eq!(stored, 1, "in round {round}");
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    let rounds: BTreeSet<_> = consumer
        .drain(5)
        .await
        .iter()
        .map(|d| number(&d.envelope))
        .collect();
    assert!(rounds.into_iter().eq(0..5));
    consumer.silent(SILENCE).await;
}

async fn p12_the_same_id_twice_in_a_batch_is_one_message(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let (one, two) = (message("1"), message("2"));
    let of = |envelope: &Envelope| once(to(&topology, envelope.clone()), WINDOW);
    let batch = vec![of(&one), of(&one), of(&two), of(&one), of(&two)];
    let answers = stage.transport.publish(batch).await;
    let answers: Vec<_> = answers.into_iter().map(|a| a.must("publishing")).collect();
    use Published::{Accepted, Duplicate};
    assert_eq!(
        answers,
        [Accepted, Duplicate, Accepted, Duplicate, Duplicate]
    );
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.drain(2).await;
    consumer.silent(SILENCE).await;
}

async fn p12_a_message_that_waits_for_its_retry_holds_its_id(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = once(to(&topology, message("again")), WINDOW);
    accepted(&stage, &sent).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for attempt in 1..=3 {
        let delivery = consumer.next().await;
        assert_eq!(
            (delivery.attempt, delivery.standing),
            (attempt, Standing::Held)
        );
        let after = Duration::from_millis(if attempt == 2 { 0 } else { 400 });
        let waiting = MarkChange::Waiting {
            attempt: attempt + 1,
            at_most: after + WINDOW,
        };
        let retry = marked(delivery, Verdict::Retry { after }, waiting);
        consumer.settle_with(retry).await.must("retrying");
        duplicate(&stage, &sent).await;
    }
    let delivery = consumer.next().await;
    assert_eq!((delivery.attempt, delivery.standing), (4, Standing::Held));
    let completed = marked(delivery, Verdict::Complete, done(WINDOW));
    consumer.settle_with(completed).await.must("completing");
    duplicate(&stage, &sent).await;
    consumer.silent(SILENCE).await;
}

async fn p12_what_is_given_back_holds_its_id(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = once(to(&topology, message("patient")), WINDOW);
    accepted(&stage, &sent).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for after in [0, 300] {
        let delivery = consumer.next().await;
        assert_eq!((delivery.attempt, delivery.standing), (1, Standing::Held));
        let after = Duration::from_millis(after);
        let released = consumer.settle(delivery, Verdict::Release { after }).await;
        released.must("giving back");
        duplicate(&stage, &sent).await;
    }
    let delivery = consumer.next().await;
    assert_eq!(delivery.standing, Standing::Held);
    consumer.complete(delivery).await;
    consumer.silent(SILENCE).await;
}

async fn p12_the_death_of_its_process_frees_no_id(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = once(to(&topology, message("killer")), WINDOW);
    accepted(&stage, &sent).await;
    for attempt in 1..=3 {
        let process = stage.open().await;
        let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
        let delivery = consumer.next().await;
        assert_eq!(
            (delivery.attempt, delivery.standing),
            (attempt, Standing::Held)
        );
        consumer.start(&delivery).await;
        drop(consumer);
        duplicate(&stage, &sent).await;
    }
}

async fn p12_an_id_is_known_for_its_window_after_completion(stage: Arc<Stage>) {
    let window = Duration::from_millis(1500);
    let topology = stage.deduplicating(window).await;
    let sent = once(to(&topology, message("1")), window);
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..2 {
        accepted(&stage, &sent).await;
        let delivery = consumer.next().await;
        // Longer than its window: that begins with the completion.
        tokio::time::sleep(window + Duration::from_millis(200)).await;
        duplicate(&stage, &sent).await;
        let completing = Instant::now();
        let completed = marked(delivery, Verdict::Complete, done(window));
        consumer.settle_with(completed).await.must("completing");
        let completed = Instant::now();
        loop {
            let asked = Instant::now();
            if found(&*stage.transport, sent.clone()).await == Published::Accepted {
                let known = completing.elapsed() + TICK;
                assert!(known >= window, "forgotten after {known:?}");
                break;
            }
            assert!(asked < completed + window + PATIENCE, "known for ever");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let known = completed.elapsed();
        assert!(known < window + GRACE + GRACE, "known for {known:?}");
        // It is a message like any other, and holds its id itself.
        let delivery = consumer.next().await;
        assert_eq!((delivery.attempt, delivery.standing), (1, Standing::Held));
        duplicate(&stage, &sent).await;
        let released = MarkChange::Released;
        let verdict = Verdict::DeadLetter {
            reason: Reason::Permanent,
            detail: String::new(),
        };
        let dead = marked(delivery, verdict, released);
        consumer.settle_with(dead).await.must("dead-lettering");
    }
    consumer.silent(SILENCE).await;
}

async fn p12_a_dead_letter_has_let_go_of_its_id(stage: Arc<Stage>) {
    let topology = stage.deduplicating(WINDOW).await;
    let sent = once(to(&topology, message("1")), WINDOW);
    accepted(&stage, &sent).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delivery = consumer.next().await;
    let verdict = Verdict::DeadLetter {
        reason: Reason::Permanent,
        detail: String::new(),
    };
    let dead = marked(delivery, verdict, MarkChange::Released);
    consumer.settle_with(dead).await.must("dead-lettering");
    accepted(&stage, &sent).await;
    let second = consumer.next().await;
    let completed = marked(second, Verdict::Complete, done(WINDOW));
    consumer.settle_with(completed).await.must("completing");
    duplicate(&stage, &sent).await;
    // The dead one runs when it is sent back, though its id is done, and what it does is known after it.
    let letter = letters(&stage, &topology, 1).await.remove(0);
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    let back = consumer.next().await;
    assert_eq!((back.attempt, back.standing), (1, Standing::Exempt));
    let completed = marked(back, Verdict::Complete, done(WINDOW));
    consumer.settle_with(completed).await.must("completing");
    duplicate(&stage, &sent).await;
    consumer.silent(SILENCE).await;
}

async fn p12_a_delayed_message_holds_its_id_while_it_waits(stage: Arc<Stage>) {
    // The delay is longer than the window.
    let (window, delay) = (Duration::from_millis(300), Duration::from_millis(1500));
    let topology = stage.deduplicating(window).await;
    let mut sent = once(to(&topology, message("1")), window);
    let now = sent.clone();
    sent.delay = delay;
    let asked = Instant::now();
    accepted(&stage, &sent).await;
    while asked.elapsed() + Duration::from_millis(200) < delay {
        duplicate(&stage, &sent).await;
        duplicate(&stage, &now).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delivery = consumer.next().await;
    assert!(asked.elapsed() + TICK >= delay, "early");
    assert_eq!(delivery.standing, Standing::Held);
    duplicate(&stage, &now).await;
    consumer.complete(delivery).await;
    consumer.silent(SILENCE).await;
}

async fn p12_what_was_refused_holds_no_id(stage: Arc<Stage>) {
    let topology = Topology::new(stage.name());
    let sent = once(to(&topology, message("1")), WINDOW);
    for _ in 0..2 {
        let mut answers = stage.transport.publish(vec![sent.clone()]).await;
        let error = answers.pop().must("an answer").err();
        let error = error.must("published to a missing queue");
        assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
    }
    stage.declare(&topology).await;
    accepted(&stage, &sent).await;
    duplicate(&stage, &sent).await;
}
