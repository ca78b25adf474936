//! P13: replies reach whoever asked, and nobody else.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc, time::Duration};

use longshore_core::{
    Delivery, Destination, Envelope, Outgoing, Reason, ReplyAddress, Result, Source, Transport,
};
use tokio::time::Instant;

use super::dead_letters::{letters, set_aside};
use crate::conformance::{
    case::cases,
    consumer::Consumer,
    message::{all_to, assert_same, laden, message, number, numbered, to},
    must::Must,
    stage::{PATIENCE, SILENCE, Stage, accepted},
};

cases![
    p13_a_reply_reaches_its_requester_whole needs Replies,
    p13_a_reply_says_its_part_and_number needs Replies,
    p13_the_address_of_a_requester_stays_with_its_request needs Replies,
    p13_replies_of_many_requesters_are_kept_apart needs Replies,
    p13_replies_arrive_in_order_and_need_no_settlement needs Replies,
    p13_a_reply_to_nobody_is_dropped needs Replies,
    p13_a_forged_address_is_never_written_to needs Replies,
    p13_a_flood_of_replies_is_bounded needs Replies,
    p13_an_inbox_that_may_have_lost_replies_says_so needs Replies & Cut,
];

/// A requester.
struct Inbox {
    address: ReplyAddress,
    source: Box<dyn Source>,
}

impl Inbox {
    async fn of(transport: &dyn Transport) -> Self {
        let (address, source) = transport.inbox().await.must("opening an inbox");
        Self { address, source }
    }

    async fn batch(&mut self, max: usize, within: Duration) -> Option<Result<Vec<Delivery>>> {
        tokio::task::consume_budget().await;
        let mut into = Vec::new();
        let received = poll_fn(|cx| self.source.poll_receive(cx, max, &mut into));
        let received = tokio::time::timeout(within, received).await.ok()?;
        Some(received.map(|_| into))
    }

    async fn next(&mut self) -> Envelope {
        let batch = self.batch(1, PATIENCE).await.must("a reply");
        let delivery = batch.must("receiving a reply").pop();
        delivery.must("a reply of an open inbox").envelope
    }

    async fn silent(&mut self, within: Duration) {
        if let Some(came) = self.batch(1, within).await {
            panic!("this must not come: {came:?}");
        }
    }
}

fn reply_to(address: &ReplyAddress, mut envelope: Envelope) -> Outgoing {
    envelope.key = None;
    envelope.reply_to = None;
    Outgoing {
        to: Destination::Reply(address.clone()),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    }
}

async fn p13_a_reply_reaches_its_requester_whole(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let requester = stage.open().await;
    let mut inbox = Inbox::of(&*requester).await;
    let mut request = laden();
    request.reply_to = Some(inbox.address.clone());
    accepted(&*requester, vec![to(&topology, request.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let asked = consumer.next().await;
    assert_same(&request, &asked.envelope);
    let address = asked.envelope.reply_to.clone().must("where to answer");
    let mut answer = laden();
    answer.key = None;
    answer.correlation_id = asked.envelope.correlation_id.clone();
    stage
        .publish(vec![reply_to(&address, answer.clone())])
        .await;
    consumer.complete(asked).await;
    assert_same(&answer, &inbox.next().await);
    inbox.silent(SILENCE).await;
}

async fn p13_a_reply_says_its_part_and_number(stage: Arc<Stage>) {
    let mut inbox = Inbox::of(&*stage.transport).await;
    let sent = [
        ("part", "0"),
        ("part", "1"),
        ("last", "2"),
        ("fault", "4294967295"),
    ];
    let own = ("x-own", "kept");
    for (part, number) in sent {
        let mut answer = message(part);
        for (name, value) in [
            ("longshore-reply", part),
            ("longshore-reply-number", number),
            own,
        ] {
            let value = value.as_bytes().to_vec().into();
            answer.headers.push((name.into(), value));
        }
        stage.publish(vec![reply_to(&inbox.address, answer)]).await;
    }
    for (part, number) in sent {
        let came = inbox.next().await;
        assert_eq!(came.body, part);
        assert_eq!(came.header("longshore-reply"), Some(part));
        assert_eq!(came.header("longshore-reply-number"), Some(number));
        assert_eq!(came.header(own.0), Some(own.1));
        assert_eq!(came.headers.len(), 3, "{:?}", came.headers);
    }
}

async fn p13_the_address_of_a_requester_stays_with_its_request(stage: Arc<Stage>) {
    let topology = stage.queue().await;
    let requester = stage.open().await;
    let mut inbox = Inbox::of(&*requester).await;
    let mut request = laden();
    request.reply_to = Some(inbox.address.clone());
    accepted(&*requester, vec![to(&topology, request.clone())]).await;
    let mut consumer = Consumer::of(&stage, &topology).await;
    let first = consumer.next().await;
    consumer.retry(first, Duration::ZERO).await;
    let second = consumer.next().await;
    assert_same(&request, &second.envelope);
    consumer.release(second).await;
    set_aside(&mut consumer, Reason::Permanent, "").await;
    let letter = letters(&stage, &topology, 1).await.remove(0);
    assert_same(&request, &letter.envelope);
    let admin = stage.transport.admin();
    let answers = admin.redrive(&topology.queue, &[letter.id]).await;
    answers.into_iter().for_each(|a| a.must("redriving"));
    let third = consumer.next().await;
    assert_same(&request, &third.envelope);
    let address = third.envelope.reply_to.clone().must("where to answer");
    consumer.complete(third).await;
    stage
        .publish(vec![reply_to(&address, message("late, but here"))])
        .await;
    assert_eq!(inbox.next().await.body, "late, but here");
}

async fn p13_replies_of_many_requesters_are_kept_apart(stage: Arc<Stage>) {
    let other = stage.open().await;
    let mut inboxes = Vec::new();
    for at in 0..30 {
        let transport = if at % 3 == 0 {
            &other
        } else {
            &stage.transport
        };
        inboxes.push(Inbox::of(&**transport).await);
    }
    let addresses: BTreeSet<_> = inboxes.iter().map(|i| i.address.as_str()).collect();
    assert_eq!(addresses.len(), 30, "each has its own");
    let addresses: Vec<_> = inboxes.iter().map(|i| i.address.clone()).collect();
    for round in 0..3 {
        let batch = addresses
            .iter()
            .enumerate()
            .map(|(at, address)| reply_to(address, message((at + 100 * round).to_string())));
        stage.publish(batch.collect()).await;
    }
    for (at, inbox) in inboxes.iter_mut().enumerate() {
        for round in 0..3 {
            assert_eq!(number(&inbox.next().await), at + 100 * round);
        }
        inbox.silent(Duration::from_millis(20)).await;
    }
}

async fn p13_replies_arrive_in_order_and_need_no_settlement(stage: Arc<Stage>) {
    const COUNT: usize = 4000;
    let mut inbox = Inbox::of(&*stage.transport).await;
    let (worker, address) = (stage.open().await, inbox.address.clone());
    let answering = tokio::spawn(async move {
        let all: Vec<_> = numbered(0..COUNT).collect();
        for some in all.chunks(50) {
            let batch = some.iter().cloned();
            let batch = batch.map(|answer| reply_to(&address, answer)).collect();
            accepted(&*worker, batch).await;
        }
    });
    for wanted in 0..COUNT {
        assert_eq!(number(&inbox.next().await), wanted);
    }
    answering.await.must("the worker");
    inbox.silent(Duration::from_millis(200)).await;
}

async fn p13_a_reply_to_nobody_is_dropped(stage: Arc<Stage>) {
    let requester = stage.open().await;
    let gone = Inbox::of(&*requester).await;
    let here = Inbox::of(&*stage.transport).await;
    let address = gone.address.clone();
    drop(gone);
    // Once, before and after the broker has noticed.
    for _ in 0..2 {
        stage
            .publish(vec![reply_to(&address, message("too late"))])
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let never = Inbox::of(&*requester).await;
    let never_address = never.address.clone();
    requester.close(Duration::from_secs(2)).await;
    drop(never);
    let mut batch = vec![reply_to(&here.address, message("1"))];
    for address in [&address, &never_address] {
        batch.push(reply_to(address, message("too late")));
    }
    batch.push(reply_to(&here.address, message("2")));
    stage.publish(batch).await;
    let mut here = here;
    for wanted in 1..=2 {
        assert_eq!(
            number(&here.next().await),
            wanted,
            "those alive are answered"
        );
    }
    // Nobody who comes later finds what was for another.
    let mut later = Inbox::of(&*stage.transport).await;
    later.silent(SILENCE).await;
}

/// Everything a client could name to have a worker write where it may not itself.
async fn p13_a_forged_address_is_never_written_to(stage: Arc<Stage>) {
    let (topology, victim) = (stage.queue().await, stage.queue().await);
    let name = victim.queue.as_str();
    let forged = [
        name.to_owned(),
        format!("{name}.dlq"),
        format!("ls:{{{name}}}:stream"),
        format!("ls:{{{name}}}:dead"),
        format!("ls:reply:{{{name}}}:stream"),
        "amq.direct".to_owned(),
        "amq.topic".to_owned(),
        String::new(),
        " ".to_owned(),
        "#".to_owned(),
        format!("{name}\u{0}"),
        format!("amq.gen-x\n{name}"),
    ];
    let mut arrived = 0;
    for address in &forged {
        let forged = ReplyAddress::checked(address.as_str());
        let mut request = message("forged");
        request.reply_to = Some(forged.clone());
        // The publisher may be refused; what arrives has no address.
        let mut answers = stage.transport.publish(vec![to(&topology, request)]).await;
        arrived += usize::from(answers.pop().must("an answer").is_ok());
        // A worker that was tricked all the same: refused or dropped, but not written.
        let forged = reply_to(&forged, message("written"));
        let answers = stage.transport.publish(vec![forged]).await;
        assert_eq!(answers.len(), 1, "one answer for each reply");
    }
    let mut consumer = Consumer::of(&stage, &topology).await;
    for delivery in consumer.drain(arrived).await {
        let address = delivery.envelope.reply_to;
        assert_eq!(address, None, "an address off the list was kept");
    }
    let mut consumer = Consumer::of(&stage, &victim).await;
    consumer.silent(SILENCE).await;
    let figures = stage.stats(&victim).await;
    assert_eq!((figures.ready, figures.dead), (0, 0));
    // The transport is as good as before.
    stage.publish(all_to(&victim, numbered(0..3))).await;
    consumer.drain(3).await;
}

async fn p13_a_flood_of_replies_is_bounded(stage: Arc<Stage>) {
    const FLOOD: usize = 40_000;
    const BOUND: usize = 20_000;
    let worker = stage.open().await;
    let mut inbox = Inbox::of(&*stage.transport).await;
    for _ in 0..FLOOD / 1000 {
        let batch = (0..1000).map(|_| reply_to(&inbox.address, message("flood")));
        // An inbox that is full may refuse or drop: nobody reads it.
        worker.publish(batch.collect()).await;
    }
    // One look: what the process holds, not what the broker still has.
    let held = inbox.batch(usize::MAX, PATIENCE).await.must("replies");
    let held = held.map(|batch| batch.len());
    assert!(held.as_ref().is_ok_and(|held| *held <= BOUND) || held.is_err());
    let from = Instant::now();
    let mut ended = held.is_err();
    while !ended && from.elapsed() < PATIENCE {
        match inbox.batch(1000, Duration::from_millis(500)).await {
            Some(Ok(batch)) => ended = batch.is_empty(),
            Some(Err(_)) => ended = true,
            None => break,
        }
    }
    // What was lost has ended the inbox, or it is as good as before.
    if ended {
        inbox = Inbox::of(&*stage.transport).await;
    }
    accepted(&*worker, vec![reply_to(&inbox.address, message("7"))]).await;
    assert_eq!(number(&inbox.next().await), 7);
}

async fn p13_an_inbox_that_may_have_lost_replies_says_so(stage: Arc<Stage>) {
    let mut inbox = Inbox::of(&*stage.transport).await;
    stage
        .publish(vec![reply_to(&inbox.address, message("before"))])
        .await;
    assert_eq!(inbox.next().await.body, "before");
    stage.faults().cut_now().await;
    let sent = Instant::now();
    let worker = stage.open().await;
    loop {
        match inbox.batch(10, Duration::from_millis(200)).await {
            // It says so: whoever waits is told.
            Some(Err(_)) => break,
            Some(Ok(batch)) if !batch.is_empty() => return,
            Some(Ok(_)) => panic!("an inbox that nobody stopped has ended without a word"),
            None => {}
        }
        assert!(sent.elapsed() < PATIENCE, "neither an end nor a reply");
        let answer = reply_to(&inbox.address, message("after"));
        worker.publish(vec![answer]).await;
    }
    let mut inbox = Inbox::of(&*stage.transport).await;
    accepted(&*worker, vec![reply_to(&inbox.address, message("new"))]).await;
    assert_eq!(inbox.next().await.body, "new");
}
