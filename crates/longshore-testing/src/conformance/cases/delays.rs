//! P8: delays.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use longshore_core::{Error, ErrorKind, Ids, SeededIds, Text, Topology, Verdict};
use tokio::time::Instant;

use crate::conformance::{
    case::cases,
    consumer::{Consumer, settlement, subscription},
    message::{all_to, assert_same, laden, later, message, numbered, to},
    must::Must,
    stage::{PATIENCE, SILENCE, Stage, accepted},
};

cases![
    p8_two_hundred_delayed_messages_are_never_early_and_hardly_late needs Delays alone,
    p8_two_hundred_retries_are_never_early_and_hardly_late needs Delays alone,
    p8_a_long_delay_holds_back_no_short_one needs Delays,
    p8_delays_to_a_missing_queue_hold_back_nobody needs Delays,
    p8_a_delayed_message_is_seen_by_nobody_before_its_time needs Delays,
    p8_a_delay_outlives_every_process needs Delays,
    p8_a_delayed_message_arrives_unaltered needs Delays,
    p8_the_longest_delay_is_kept_and_a_longer_one_refused needs Delays,
    p8_a_retry_without_delay_comes_back_at_once,
    p8_a_delayed_retry_leaves_room_for_others needs Delays,
];

/// What clocks that count in milliseconds cannot tell apart from being in time.
const TICK: Duration = Duration::from_millis(1);

fn random_delay(chance: &SeededIds) -> Duration {
    Duration::from_millis(50 + (chance.next() % 2950) as u64)
}

/// When a message was due at the earliest and at the latest.
#[derive(Clone, Copy)]
struct Due {
    delay: Duration,
    asked: Instant,
    confirmed: Instant,
}

/// Ends the case where one of them came early. Answers what was wrong where more than 1 % of them
/// came more than 1 % + 250 ms late, or one by far.
#[track_caller]
fn lateness(arrivals: &[(Due, Instant)]) -> Option<String> {
    let mut late = Vec::new();
    for (due, arrived) in arrivals {
        let early = (due.asked + due.delay).saturating_duration_since(*arrived);
        assert!(early <= TICK, "early by {early:?} of {:?}", due.delay);
        let allowed = due.delay.mul_f64(1.01) + Duration::from_millis(250);
        late.push(arrived.saturating_duration_since(due.confirmed + allowed));
    }
    late.sort();
    let (all, tail) = (late.len(), late.len().div_ceil(100));
    let worst = late[all - 1];
    let beyond = late.iter().filter(|by| !by.is_zero()).count();
    (beyond > tail || worst > Duration::from_secs(2))
        .then(|| format!("{beyond} of {all} beyond 1 % + 250 ms, the worst by {worst:?}"))
}

/// Ends the case unless one round of three is in time: a machine that has other things to do makes
/// any round late, a transport that is late is so in each. Early is early in any.
macro_rules! punctual_in_one_round_of_three {
    ($round:expr) => {{
        let mut late = Vec::new();
        while late.len() < 3 {
            match lateness(&$round.await) {
                None => return,
                Some(how) => late.push(how),
            }
        }
        panic!("late in each of three rounds: {late:?}");
    }};
}

async fn p8_two_hundred_delayed_messages_are_never_early_and_hardly_late(stage: Arc<Stage>) {
    punctual_in_one_round_of_three!(two_hundred_delayed(&stage));
}

async fn two_hundred_delayed(stage: &Stage) -> Vec<(Due, Instant)> {
    let chance = SeededIds::new(8);
    let topology = stage.queue().await;
    let mut consumer = Consumer::with_prefetch(stage, &topology, 200).await;
    let sent: Vec<_> = (0..200)
        .map(|_| (message("later"), random_delay(&chance)))
        .collect();
    let batch = sent
        .iter()
        .map(|(envelope, delay)| later(&topology, envelope.clone(), *delay));
    let asked = Instant::now();
    stage.publish(batch.collect()).await;
    let confirmed = Instant::now();
    let due = |delay| Due {
        delay,
        asked,
        confirmed,
    };
    let dues = sent.into_iter().map(|(sent, delay)| (sent.id, due(delay)));
    arrivals(&mut consumer, dues.collect(), 1).await
}

async fn p8_two_hundred_retries_are_never_early_and_hardly_late(stage: Arc<Stage>) {
    punctual_in_one_round_of_three!(two_hundred_retries(&stage));
}

async fn two_hundred_retries(stage: &Stage) -> Vec<(Due, Instant)> {
    let chance = SeededIds::new(88);
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..200))).await;
    let mut consumer = Consumer::with_prefetch(stage, &topology, 200).await;
    let (mut batch, mut delays) = (Vec::new(), Vec::new());
    for delivery in consumer.take(200).await {
        let after = random_delay(&chance);
        delays.push((delivery.envelope.id.clone(), after));
        batch.push(settlement(delivery, Verdict::Retry { after }));
    }
    let asked = Instant::now();
    let answers = consumer.settler.settle(batch).await;
    let confirmed = Instant::now();
    for answer in answers {
        answer.must("retrying");
    }
    let due = |delay| Due {
        delay,
        asked,
        confirmed,
    };
    let dues = delays.into_iter().map(|(id, delay)| (id, due(delay)));
    arrivals(&mut consumer, dues.collect(), 2).await
}

/// Takes what is due as it comes and waits for nothing in between.
async fn arrivals(
    consumer: &mut Consumer,
    mut dues: BTreeMap<Text, Due>,
    attempt: u32,
) -> Vec<(Due, Instant)> {
    let mut arrivals = Vec::new();
    while !dues.is_empty() {
        let batch = consumer.batch(200, PATIENCE).await;
        let batch = batch.must("what is still to come").must("receiving");
        let now = Instant::now();
        for delivery in &batch {
            let due = dues.remove(&delivery.envelope.id);
            arrivals.push((due.must("each of them once"), now));
            assert_eq!(delivery.attempt, attempt, "waiting is no attempt");
        }
        assert!(!batch.is_empty(), "the source ended by itself");
        consumer.complete_all(batch).await;
    }
    arrivals
}

async fn p8_a_long_delay_holds_back_no_short_one(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delays = [3600, 5, 3, 1].map(Duration::from_secs);
    let from = Instant::now();
    for delay in delays {
        let body = delay.as_secs().to_string();
        stage
            .publish(vec![later(&topology, message(body), delay)])
            .await;
    }
    stage.publish(vec![to(&topology, message("0"))]).await;
    for seconds in ["0", "1", "3", "5"] {
        let delivery = consumer.next().await;
        assert_eq!(
            &delivery.envelope.body[..],
            seconds.as_bytes(),
            "after {:?}",
            from.elapsed()
        );
        consumer.complete(delivery).await;
    }
    consumer.silent(SILENCE).await;
}

async fn p8_delays_to_a_missing_queue_hold_back_nobody(stage: Arc<Stage>) {
    let (topology, missing) = (stage.queue().await, Topology::new(stage.name()));
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delay = Duration::from_millis(700);
    let lost = (0..100).map(|_| later(&missing, message("lost"), delay));
    // Refused now or undeliverable then: both are honest.
    for answer in stage.transport.publish(lost.collect()).await {
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::NoSuchQueue, "{error}");
        }
    }
    let asked = Instant::now();
    stage
        .publish(vec![later(&topology, message("good"), delay)])
        .await;
    let confirmed = Instant::now();
    let good = consumer.next().await;
    let late = lateness(&[(
        Due {
            delay,
            asked,
            confirmed,
        },
        Instant::now(),
    )]);
    assert!(late.is_none(), "{late:?}");
    consumer.complete(good).await;
}

async fn p8_a_delayed_message_is_seen_by_nobody_before_its_time(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let delay = Duration::from_secs(2);
    let asked = Instant::now();
    stage
        .publish(vec![later(&topology, message("later"), delay)])
        .await;
    let other = stage.open().await;
    let mut consumers = Vec::new();
    for transport in [&stage.transport, &other] {
        consumers.push(Consumer::on(&**transport, subscription(&stage, &topology)).await);
    }
    for consumer in &mut consumers {
        consumer.silent(Duration::from_millis(500)).await;
    }
    stage
        .until_stats(&topology, "nothing ready", |stats| {
            stats.ready == 0 && stats.delayed.unwrap_or(1) == 1
        })
        .await;
    drop(consumers.pop());
    let mut consumer = consumers.pop().must("a consumer");
    let delivery = consumer.next().await;
    assert!(
        asked.elapsed() + TICK >= delay,
        "early: {:?}",
        asked.elapsed()
    );
    consumer.complete(delivery).await;
}

async fn p8_a_delay_outlives_every_process(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let process = stage.open().await;
    let mut consumer = Consumer::on(&*process, subscription(&stage, &topology)).await;
    accepted(&*process, vec![to(&topology, message("retried"))]).await;
    let delivery = consumer.next().await;
    let asked = Instant::now();
    consumer.retry(delivery, Duration::from_secs(2)).await;
    let published = vec![later(
        &topology,
        message("published"),
        Duration::from_secs(2),
    )];
    accepted(&*process, published).await;
    drop(consumer);
    process.close(Duration::from_secs(2)).await;
    drop(process);
    // Nobody at all is there when one of them is due.
    let short = vec![later(
        &topology,
        message("short"),
        Duration::from_millis(100),
    )];
    stage.publish(short).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut heir = Consumer::of(&stage, &topology).await;
    let short = heir.next().await;
    assert_eq!(&short.envelope.body[..], b"short");
    heir.complete(short).await;
    for delivery in heir.take(2).await {
        assert!(
            asked.elapsed() + TICK >= Duration::from_secs(2),
            "early: {:?}",
            asked.elapsed()
        );
        let retried = delivery.envelope.body == "retried";
        assert_eq!(delivery.attempt, if retried { 2 } else { 1 });
        heir.complete(delivery).await;
    }
}

async fn p8_a_delayed_message_arrives_unaltered(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage
        .publish(vec![later(
            &topology,
            sent.clone(),
            Duration::from_millis(120),
        )])
        .await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let arrived = consumer.next().await;
    assert_same(&sent, &arrived.envelope);
    consumer.retry(arrived, Duration::from_millis(120)).await;
    let again = consumer.next().await;
    assert_same(&sent, &again.envelope);
    assert_eq!(again.attempt, 2);
    consumer.complete(again).await;
}

async fn p8_the_longest_delay_is_kept_and_a_longer_one_refused(stage: Arc<Stage>) {
    let longest = stage.transport.capabilities().longest_delay.must("delays");
    let longer = longest + Duration::from_secs(1);
    let topology = stage.queue().await;
    stage
        .publish(vec![later(&topology, message("longest"), longest)])
        .await;
    let mut answers = stage
        .transport
        .publish(vec![later(&topology, message("longer"), longer)])
        .await;
    let error = answers
        .pop()
        .must("an answer")
        .err()
        .must("a delay above the longest");
    assert!(is_refusal(&error), "{:?}: {error}", error.kind());
    let mut consumer = Consumer::of(&stage, &topology).await;
    consumer.silent(SILENCE).await;
    stage.publish(vec![to(&topology, message("retried"))]).await;
    let delivery = consumer.next().await;
    let refused = match consumer
        .settle(delivery, Verdict::Retry { after: longer })
        .await
    {
        Err(refused) => refused,
        // Keeping it for longer than promised is no harm, but losing it to an early return is.
        Ok(()) => return consumer.silent(SILENCE).await,
    };
    assert!(is_refusal(&refused.error), "{}", refused.error);
    let mut settlement = refused.settlement.must("the settlement is given back");
    settlement.verdict = Verdict::Retry {
        after: Duration::ZERO,
    };
    let mut answers = consumer.settler.settle(vec![*settlement]).await;
    answers.pop().must("an answer").must("its lock still holds");
    let back = consumer.next().await;
    consumer.complete(back).await;
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}

async fn p8_a_retry_without_delay_comes_back_at_once(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("again"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let delivery = consumer.next().await;
    let from = Instant::now();
    consumer.retry(delivery, Duration::ZERO).await;
    let again = consumer.next().await;
    assert!(
        from.elapsed() < Duration::from_millis(1500),
        "after {:?}",
        from.elapsed()
    );
    consumer.complete(again).await;
}

async fn p8_a_delayed_retry_leaves_room_for_others(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..6))).await;
    let mut consumer = Consumer::with_prefetch(&stage, &topology, 2).await;
    for _ in 0..4 {
        let delivery = consumer.next().await;
        consumer.retry(delivery, Duration::from_secs(600)).await;
    }
    consumer.drain(2).await;
    consumer.silent(SILENCE).await;
}
