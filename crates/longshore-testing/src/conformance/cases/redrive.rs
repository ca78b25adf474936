//! P7: sending dead letters back, or removing them for ever.

use std::{sync::Arc, time::Duration};

use longshore_core::{Destination, ErrorKind, Part, Reason, Subscription, Text, Topology};

use super::dead_letters::{letters, set_aside};
use crate::conformance::{
    case::cases,
    consumer::{Consumer, subscription},
    message::{all_to, assert_same, laden, message, numbered, to},
    must::Must,
    stage::{SILENCE, Stage},
};

cases![
    p7_redrive_restores_the_original_with_its_attempts_reset,
    p7_redriving_what_is_not_there_is_stale,
    p7_redrive_answers_a_batch_in_order,
    p7_a_redriven_message_can_die_again,
    p7_discard_removes_for_ever,
    p7_redrive_goes_back_to_the_lane_it_came_from needs Lanes,
];

async fn p7_redrive_restores_the_original_with_its_attempts_reset(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..3 {
        let delivery = consumer.next().await;
        consumer.retry(delivery, Duration::ZERO).await;
    }
    set_aside(&mut consumer, Reason::Exhausted, "four times").await;
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_eq!(letter.attempts, 4);
    let answers = stage
        .transport
        .admin()
        .redrive(&topology.queue, &[letter.id])
        .await;
    answers
        .into_iter()
        .next()
        .must("an answer")
        .must("redriving");
    letters(&stage, &topology, 0).await;
    let back = consumer.next().await;
    assert_same(&sent, &back.envelope);
    assert!(
        back.attempt == 1 && !back.suspect && back.defect.is_none(),
        "{back:?}"
    );
    consumer.complete(back).await;
    consumer.silent(SILENCE).await;
}

async fn p7_redriving_what_is_not_there_is_stale(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(vec![to(&topology, message("once"))]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    set_aside(&mut consumer, Reason::Permanent, "").await;
    let id = letters(&stage, &topology, 1).await.remove(0).id;
    let admin = stage.transport.admin();
    let answers = admin
        .redrive(&topology.queue, std::slice::from_ref(&id))
        .await;
    answers
        .into_iter()
        .next()
        .must("an answer")
        .must("redriving");
    for answer in admin
        .redrive(&topology.queue, &[id.clone(), Text::from("no such id\n")])
        .await
    {
        let error = answer.err().must("redriving what is not there");
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let back = consumer.next().await;
    consumer.complete(back).await;
    consumer.silent(SILENCE).await;
}

async fn p7_redrive_answers_a_batch_in_order(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..5))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..5 {
        set_aside(&mut consumer, Reason::Permanent, "").await;
    }
    let list = letters(&stage, &topology, 5).await;
    let ids: Vec<_> = list.iter().map(|letter| letter.id.clone()).collect();
    let batch = [
        ids[3].clone(),
        "nobody".into(),
        ids[0].clone(),
        ids[3].clone(),
    ];
    let answers = stage
        .transport
        .admin()
        .redrive(&topology.queue, &batch)
        .await;
    let fine: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, false, true, false], "{answers:?}");
    let mut back: Vec<_> = consumer
        .drain(2)
        .await
        .into_iter()
        .map(|d| d.envelope.id)
        .collect();
    let mut wanted = vec![list[0].envelope.id.clone(), list[3].envelope.id.clone()];
    back.sort();
    wanted.sort();
    assert_eq!(back, wanted);
    letters(&stage, &topology, 3).await;
    assert!(
        stage
            .transport
            .admin()
            .redrive(&topology.queue, &[])
            .await
            .is_empty()
    );
}

async fn p7_a_redriven_message_can_die_again(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let sent = laden();
    stage.publish(vec![to(&topology, sent.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for round in ["first", "second", "third"] {
        set_aside(&mut consumer, Reason::Other(round.into()), round).await;
        let letter = letters(&stage, &topology, 1).await.remove(0);
        assert_same(&sent, &letter.envelope);
        assert_eq!(
            (letter.reason.as_str(), &letter.detail[..], letter.attempts),
            (round, round, 1)
        );
        let answers = stage
            .transport
            .admin()
            .redrive(&topology.queue, &[letter.id])
            .await;
        answers
            .into_iter()
            .next()
            .must("an answer")
            .must("redriving");
    }
    let back = consumer.next().await;
    consumer.complete(back).await;
    letters(&stage, &topology, 0).await;
}

async fn p7_discard_removes_for_ever(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    stage.publish(all_to(&topology, numbered(0..3))).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    for _ in 0..3 {
        set_aside(&mut consumer, Reason::Permanent, "").await;
    }
    let ids: Vec<_> = letters(&stage, &topology, 3)
        .await
        .into_iter()
        .map(|l| l.id)
        .collect();
    let admin = stage.transport.admin();
    let answers = admin.discard(&topology.queue, &ids[..2]).await;
    assert!(
        answers.len() == 2 && answers.iter().all(Result::is_ok),
        "{answers:?}"
    );
    assert_eq!(
        letters(&stage, &topology, 1).await[0].id,
        ids[2],
        "the others are gone"
    );
    for answer in admin.redrive(&topology.queue, &ids[..2]).await {
        let error = answer.err().must("redriving what was discarded");
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    }
    consumer.silent(SILENCE).await;
}

async fn p7_redrive_goes_back_to_the_lane_it_came_from(stage: Arc<Stage>) {
    let mut topology = Topology::new(stage.name());
    let high = longshore_core::Name::new("high").must("a name");
    topology.lanes.push(high);
    stage.declare(&topology).await;
    let mut sent = message("urgent");
    sent.priority = Some("high".into());
    let mut outgoing = to(&topology, sent.clone());
    outgoing.to = Destination::Queue(topology.queue.clone(), Part::Lane(1));
    stage.publish(vec![outgoing]).await;
    let lane = Subscription {
        part: Part::Lane(1),
        ..subscription(&stage, &topology)
    };
    let mut high = Consumer::on(&*stage.transport, lane).await;
    set_aside(&mut high, Reason::Permanent, "").await;
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_same(&sent, &letter.envelope);
    let answers = stage
        .transport
        .admin()
        .redrive(&topology.queue, &[letter.id])
        .await;
    answers
        .into_iter()
        .next()
        .must("an answer")
        .must("redriving");
    let back = high.next().await;
    assert_same(&sent, &back.envelope);
    high.complete(back).await;
}
