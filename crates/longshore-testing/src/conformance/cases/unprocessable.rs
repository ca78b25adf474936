//! P6, P18: what breaks a limit arrives as a defect and goes straight to the dead letters.

use std::{sync::Arc, time::Duration};

use longshore_core::{Envelope, Reason, Verdict};

use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{assert_same, message, to},
    must::Must,
    stage::{SILENCE, Stage},
};

/// Above the default limit of a body, and of all headers.
const BODY: usize = 1024 * 1024 + 1;
const HEADERS: usize = 32 * 1024;

cases![
    p6_a_body_above_the_limit_is_too_large,
    p6_sixty_five_headers_are_hostile,
    p6_header_bytes_above_the_limit_are_hostile,
    p6_control_characters_in_an_id_are_hostile,
    p6_control_characters_in_a_type_or_key_are_hostile,
    p6_a_name_that_is_too_long_is_hostile,
    p6_a_defect_hurts_no_neighbour,
];

/// From arrival to the dead letters, back by redrive where that is possible, and away.
async fn is_set_aside(stage: &Stage, sent: Envelope, reason: Reason) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(stage, &topology).await;
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let delivery = consumer.next().await;
    let defect = delivery.defect.clone().must("a defect");
    assert_eq!(defect.reason, reason, "{}", defect.detail);
    assert!(
        !defect.detail.chars().any(char::is_control),
        "{}",
        defect.detail
    );
    let verdict = Verdict::DeadLetter {
        reason: defect.reason,
        detail: defect.detail,
    };
    consumer
        .settle(delivery, verdict.clone())
        .await
        .must("dead-lettering a defect");
    stage
        .until_stats(&topology, "a dead letter", |stats| stats.dead == 1)
        .await;
    let admin = stage.transport.admin();
    let list = admin
        .dead_letters(&topology.queue, None, 10)
        .await
        .must("listing");
    let [letter] = &list[..] else {
        panic!("one dead letter, not {}", list.len());
    };
    assert_eq!(letter.reason, reason, "{}", letter.detail);
    assert!(
        letter.attempts <= 1,
        "no handler started: {}",
        letter.attempts
    );
    if letter.redrivable {
        assert_same(&sent, &letter.envelope);
        let answers = admin
            .redrive(&topology.queue, std::slice::from_ref(&letter.id))
            .await;
        answers
            .into_iter()
            .next()
            .must("an answer")
            .must("redriving");
        let again = consumer.next().await;
        assert_eq!(again.attempt, 1);
        assert_eq!(again.defect.as_ref().map(|d| &d.reason), Some(&reason));
        consumer
            .settle(again, verdict)
            .await
            .must("dead-lettering it again");
        stage
            .until_stats(&topology, "a dead letter again", |stats| stats.dead == 1)
            .await;
    } else {
        let answers = admin
            .redrive(&topology.queue, std::slice::from_ref(&letter.id))
            .await;
        assert!(answers[0].is_err(), "what is not redrivable was redriven");
    }
    let list = admin
        .dead_letters(&topology.queue, None, 10)
        .await
        .must("listing");
    let id = list
        .first()
        .must("it stays until it is discarded")
        .id
        .clone();
    let answers = admin.discard(&topology.queue, &[id]).await;
    answers
        .into_iter()
        .next()
        .must("an answer")
        .must("discarding");
    stage
        .until_stats(&topology, "no dead letter", |stats| stats.dead == 0)
        .await;
    consumer.silent(SILENCE).await;
}

async fn p6_a_body_above_the_limit_is_too_large(stage: Arc<Stage>) {
    is_set_aside(&stage, message(vec![b'x'; BODY]), Reason::TooLarge).await;
}

async fn p6_sixty_five_headers_are_hostile(stage: Arc<Stage>) {
    let mut sent = message("{}");
    sent.headers = (0..65)
        .map(|at| (format!("h{at}").into(), "v".into()))
        .collect();
    is_set_aside(&stage, sent, Reason::Hostile).await;
}

async fn p6_header_bytes_above_the_limit_are_hostile(stage: Arc<Stage>) {
    let mut sent = message("{}");
    sent.headers.push(("h".into(), vec![b'v'; HEADERS].into()));
    is_set_aside(&stage, sent, Reason::Hostile).await;
}

async fn p6_control_characters_in_an_id_are_hostile(stage: Arc<Stage>) {
    let mut sent = message("{}");
    sent.id = "a\r\nforged: line\u{1b}[31m".into();
    is_set_aside(&stage, sent, Reason::Hostile).await;
}

async fn p6_control_characters_in_a_type_or_key_are_hostile(stage: Arc<Stage>) {
    let mut sent = message("{}");
    sent.kind = "order\0placed".into();
    is_set_aside(&stage, sent, Reason::Hostile).await;
    let mut sent = message("{}");
    sent.key = Some("k\u{7}".into());
    is_set_aside(&stage, sent, Reason::Hostile).await;
}

async fn p6_a_name_that_is_too_long_is_hostile(stage: Arc<Stage>) {
    let mut sent = message("{}");
    sent.id = "x".repeat(200).into();
    is_set_aside(&stage, sent, Reason::Hostile).await;
    let mut sent = message("{}");
    sent.headers.push(("n".repeat(129).into(), "v".into()));
    is_set_aside(&stage, sent, Reason::Hostile).await;
}

async fn p6_a_defect_hurts_no_neighbour(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let mut batch = Vec::new();
    for at in 0..20 {
        let size = if at % 5 == 2 { BODY } else { 1000 };
        batch.push(to(&topology, message(vec![b'x'; size])));
    }
    stage.publish(batch).await;
    let mut defects = 0;
    for delivery in consumer.take(20).await {
        assert_eq!(delivery.attempt, 1);
        let Some(defect) = delivery.defect.clone() else {
            assert_eq!(delivery.envelope.body.len(), 1000);
            consumer.complete(delivery).await;
            continue;
        };
        defects += 1;
        let verdict = Verdict::DeadLetter {
            reason: defect.reason,
            detail: defect.detail,
        };
        consumer
            .settle(delivery, verdict)
            .await
            .must("dead-lettering");
    }
    assert_eq!(defects, 4);
    consumer.silent(Duration::from_millis(300)).await;
    stage
        .until_stats(&topology, "four dead letters", |stats| stats.dead == 4)
        .await;
}
