//! Lanes are queues of their own with one quarantine, and a topic reaches each message's.

use std::{sync::Arc, time::Duration};

use lapin::BasicProperties;
use longshore_core::{
    Declare, Destination, Envelope, ErrorKind, Name, Outgoing, Part, Reason, Standing,
    Subscription, Topology, Verdict,
};

use crate::{
    plain::Plain,
    rig::{PATIENCE, Rig, Taker, body, connect, message, unique},
};

const HIGH: u8 = 1;
const LOW: u8 = 2;

async fn with_lanes() -> Rig {
    let mut rig = Rig::new().await;
    rig.topology.lanes = ["high", "low"].map(name).into();
    declare(&rig, &rig.topology).await;
    rig
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

async fn declare(rig: &Rig, topology: &Topology) {
    let declared = rig.transport.declare(topology, Declare::Create).await;
    declared.expect("declared");
}

async fn lane(rig: &Rig, lane: u8) -> Taker {
    let subscription = Subscription {
        part: Part::Lane(lane),
        ..rig.subscription()
    };
    rig.subscribe_as(subscription).await
}

async fn send(rig: &Rig, outgoing: Outgoing) {
    let mut answers = rig.transport.publish(vec![outgoing]).await;
    answers.pop().expect("an answer").expect("a confirm");
}

fn urgent(priority: &str, body: &str) -> Envelope {
    let mut envelope = message(body);
    envelope.priority = Some(priority.into());
    envelope
}

async fn to_lane(rig: &Rig, lane: u8, bodies: &[&str]) {
    let priority = rig.topology.lane(lane).expect("a lane");
    for body in bodies {
        let mut outgoing = rig.outgoing(urgent(priority, body));
        outgoing.to = Destination::Queue(rig.queue().clone(), Part::Lane(lane));
        send(rig, outgoing).await;
    }
}

async fn to_topic(rig: &Rig, topic: &Name, envelope: Envelope) {
    let mut outgoing = rig.outgoing(envelope);
    outgoing.to = Destination::Topic(topic.clone());
    send(rig, outgoing).await;
}

async fn bury(taker: &Taker, delivery: longshore_core::Delivery) {
    let (reason, detail) = (Reason::Permanent, String::new());
    taker
        .settle(delivery, Verdict::DeadLetter { reason, detail })
        .await;
}

async fn redrive_all(rig: &Rig) {
    let admin = rig.transport.admin();
    let letters = admin.dead_letters(rig.queue(), None, 100).await;
    let ids: Vec<_> = letters.expect("a list").into_iter().map(|l| l.id).collect();
    assert!(!ids.is_empty());
    for answer in admin.redrive(rig.queue(), &ids).await {
        answer.expect("redriven");
    }
}

#[tokio::test]
async fn a_dead_letter_goes_back_to_its_lane_and_is_exempt_from_then_on() {
    let rig = with_lanes().await;
    to_lane(&rig, HIGH, &["x"]).await;
    let (mut normal, mut high) = (lane(&rig, 0).await, lane(&rig, HIGH).await);
    let delivery = high.one().await;
    assert_eq!(delivery.standing, Standing::Unknown);
    bury(&high, delivery).await;
    redrive_all(&rig).await;
    let delivery = high.one().await;
    assert_eq!((delivery.attempt, delivery.part), (1, Part::Lane(HIGH)));
    assert_eq!(delivery.standing, Standing::Exempt);
    let after = Duration::ZERO;
    high.settle(delivery, Verdict::Retry { after }).await;
    let delivery = high.one().await;
    assert_eq!((delivery.attempt, delivery.standing), (2, Standing::Exempt));
    bury(&high, delivery).await;
    // Sent back a second time, and settled for good.
    redrive_all(&rig).await;
    let delivery = high.one().await;
    assert_eq!((delivery.attempt, delivery.standing), (1, Standing::Exempt));
    high.complete(vec![delivery]).await;
    normal.nothing().await;
}

#[tokio::test]
async fn what_a_plain_client_puts_into_a_lane_stays_in_it_without_saying_so() {
    let rig = with_lanes().await;
    let plain = Plain::connect(&rig.url).await;
    let physical = format!("{}.p.high", rig.queue());
    let bare = BasicProperties::default();
    plain.publish(&physical, bare.clone(), b"bare").await;
    // Too large to be copied: the broker moves it, and alone knows where from.
    plain.publish(&physical, bare, &vec![b'x'; 2_000_000]).await;
    let mut high = lane(&rig, HIGH).await;
    for _ in 0..2 {
        let delivery = high.one().await;
        assert_eq!(delivery.envelope.priority.as_deref(), Some("high"));
        bury(&high, delivery).await;
    }
    drop(high);
    let admin = rig.transport.admin();
    let started = std::time::Instant::now();
    while admin.stats(rig.queue()).await.expect("figures").dead < 2 {
        assert!(started.elapsed() < PATIENCE, "they are not dead letters");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redrive_all(&rig).await;
    let mut normal = lane(&rig, 0).await;
    normal.nothing().await;
    let (_, first) = plain.take(&physical).await;
    let (_, second) = plain.take(&physical).await;
    assert_eq!([first.len(), second.len()], [4, 2_000_000]);
}

#[tokio::test]
async fn a_priority_that_is_no_lane_here_goes_back_to_the_normal_one() {
    let rig = with_lanes().await;
    for priority in ["vip", "a.b", "high.dlq", "normal", ""] {
        send(&rig, rig.outgoing(urgent(priority, priority))).await;
    }
    let mut normal = lane(&rig, 0).await;
    for delivery in normal.exactly(5).await {
        bury(&normal, delivery).await;
    }
    redrive_all(&rig).await;
    for delivery in normal.exactly(5).await {
        assert_eq!(delivery.envelope.priority.as_deref(), Some(body(&delivery)));
        normal.complete(vec![delivery]).await;
    }
}

#[tokio::test]
async fn the_suspects_of_all_lanes_run_one_at_a_time_and_return_to_their_lane_when_redriven() {
    let rig = with_lanes().await;
    to_lane(&rig, HIGH, &["a"]).await;
    to_lane(&rig, LOW, &["b"]).await;
    for attempt in 1..=2 {
        for number in [HIGH, LOW] {
            let mut taker = lane(&rig, number).await;
            assert_eq!(taker.one().await.attempt, attempt);
        }
    }
    // Whichever lane is consumed first brings the suspects of all.
    let mut normal = lane(&rig, 0).await;
    let (mut high, mut low) = (lane(&rig, HIGH).await, lane(&rig, LOW).await);
    high.nothing().await;
    low.nothing().await;
    let first = normal.one().await;
    normal.nothing().await;
    assert_eq!(first.attempt, 3);
    let lane_of = |body: &str| if body == "a" { "high" } else { "low" };
    assert_eq!(
        first.envelope.priority.as_deref(),
        Some(lane_of(body(&first)))
    );
    // With and without a wait, given back or tried again: it stays apart.
    let name = body(&first).to_owned();
    normal
        .settle(
            first,
            Verdict::Release {
                after: Duration::ZERO,
            },
        )
        .await;
    let mut seen = 0;
    for expected in [3, 4] {
        loop {
            let delivery = normal.one().await;
            if body(&delivery) != name {
                seen += 1;
                bury(&normal, delivery).await;
                continue;
            }
            assert_eq!(delivery.attempt, expected);
            match expected {
                3 => {
                    let after = Duration::from_millis(60);
                    normal.settle(delivery, Verdict::Retry { after }).await;
                }
                _ => bury(&normal, delivery).await,
            }
            break;
        }
    }
    assert_eq!(seen, 1);
    redrive_all(&rig).await;
    for (taker, expected) in [(&mut high, "a"), (&mut low, "b")] {
        let delivery = taker.one().await;
        assert_eq!((body(&delivery), delivery.attempt), (expected, 1));
        taker.complete(vec![delivery]).await;
    }
    normal.nothing().await;
}

#[tokio::test]
async fn another_lane_goes_on_with_the_suspects_when_the_first_stops() {
    let rig = with_lanes().await;
    to_lane(&rig, HIGH, &["a", "b"]).await;
    for _ in 0..2 {
        let mut taker = lane(&rig, HIGH).await;
        taker.exactly(2).await;
    }
    let mut high = lane(&rig, HIGH).await;
    let first = high.one().await;
    let mut low = lane(&rig, LOW).await;
    low.nothing().await;
    high.source.stop();
    // What is in its hands is still its own to settle.
    low.nothing().await;
    let name = body(&first).to_owned();
    high.complete(vec![first]).await;
    let second = low.one().await;
    assert_ne!(body(&second), name);
    assert_eq!(
        (second.attempt, second.envelope.priority.as_deref()),
        (3, Some("high"))
    );
    low.complete(vec![second]).await;
    assert!(high.some(1).await.is_empty(), "it has stopped");
}

#[tokio::test]
async fn figures_count_every_lane_this_client_knows() {
    let rig = with_lanes().await;
    rig.publish(["n"]).await;
    to_lane(&rig, HIGH, &["h", "i"]).await;
    to_lane(&rig, LOW, &["l"]).await;
    let ready = async |client: &Arc<dyn longshore_core::Transport>| {
        let stats = client.admin().stats(rig.queue()).await;
        stats.expect("figures").ready
    };
    assert_eq!(ready(&rig.transport).await, 4);
    let other = connect(&rig.url).await;
    assert_eq!(ready(&other).await, 1);
    let mut outgoing = rig.outgoing(urgent("high", "j"));
    outgoing.to = Destination::Queue(rig.queue().clone(), Part::Lane(7));
    let answer = other.publish(vec![outgoing]).await.pop();
    answer.expect("an answer").expect("a confirm");
    assert_eq!(ready(&other).await, 4);
}

#[tokio::test]
async fn a_lane_that_is_not_there_is_refused_and_never_made_by_a_publisher() {
    let rig = with_lanes().await;
    let to = |lane: u8, envelope| Outgoing {
        to: Destination::Queue(rig.queue().clone(), Part::Lane(lane)),
        ..rig.outgoing(envelope)
    };
    let batch = vec![
        to(3, urgent("vip", "x")),
        to(1, message("x")),
        to(1, urgent("high.quarantine", "x")),
    ];
    let answers = rig.transport.publish(batch).await;
    let kinds = answers
        .into_iter()
        .map(|answer| answer.map_err(|e| e.kind()));
    let kinds: Vec<_> = kinds.map(Result::err).collect();
    let (missing, invalid) = (Some(ErrorKind::NoSuchQueue), Some(ErrorKind::Invalid));
    assert_eq!(kinds, [missing, invalid, invalid]);

    let mut more = rig.topology.clone();
    more.lanes.push(name("vip"));
    let refused = rig.transport.declare(&more, Declare::Verify).await;
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::NoSuchQueue));
    for wrong in ["normal", "two.words"] {
        more.lanes = vec![name(wrong)];
        let refused = rig.transport.declare(&more, Declare::Create).await;
        assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Invalid));
    }
}

#[tokio::test]
async fn a_topic_reaches_the_lane_a_message_names_and_the_normal_one_where_there_is_none() {
    let mut with = with_lanes().await;
    let mut without = Rig::new().await;
    let topic = unique();
    with.topology.topics = vec![topic.clone()];
    without.topology.topics = vec![topic.clone()];
    let missing = with
        .transport
        .declare(&with.topology, Declare::Verify)
        .await;
    assert_eq!(missing.map_err(|e| e.kind()), Err(ErrorKind::NoSuchQueue));
    declare(&with, &with.topology).await;
    declare(&without, &without.topology).await;
    let verified = with
        .transport
        .declare(&with.topology, Declare::Verify)
        .await;
    verified.expect("it is there");

    for (n, priority) in [None, Some("high"), Some("low"), Some("vip"), Some("high.x")]
        .into_iter()
        .enumerate()
    {
        for key in [None, Some("a key")] {
            let mut envelope = message(&format!("{n} {key:?}"));
            envelope.priority = priority.map(Into::into);
            envelope.key = key.map(Into::into);
            to_topic(&with, &topic, envelope).await;
        }
    }
    let mut all = without.subscribe().await;
    assert_eq!(all.exactly(10).await.len(), 10);
    all.nothing().await;
    for (number, expected) in [(0, &["0", "3", "4"][..]), (HIGH, &["1"]), (LOW, &["2"])] {
        let mut taker = lane(&with, number).await;
        let deliveries = taker.exactly(2 * expected.len()).await;
        for (at, delivery) in deliveries.iter().enumerate() {
            assert!(body(delivery).starts_with(expected[at / 2]), "{number}");
        }
        taker.nothing().await;
    }
}

#[tokio::test]
async fn a_queue_that_gets_lanes_or_gives_them_up_never_gets_a_topics_messages_twice() {
    let mut rig = Rig::new().await;
    let topic = unique();
    rig.topology.topics = vec![topic.clone()];
    let without = rig.topology.clone();
    let mut with = rig.topology.clone();
    with.lanes = vec![name("high")];
    for (topology, normal, high) in [
        (&without, 2, 0),
        (&with, 1, 1),
        (&without, 2, 0),
        (&with, 1, 1),
    ] {
        declare(&rig, topology).await;
        to_topic(&rig, &topic, message("plain")).await;
        to_topic(&rig, &topic, urgent("high", "urgent")).await;
        let normal_lane = Subscription {
            topology: Arc::new(topology.clone()),
            ..rig.subscription()
        };
        let mut taker = rig.subscribe_as(normal_lane).await;
        let got = taker.exactly(normal).await;
        taker.nothing().await;
        taker.complete(got).await;
        if high == 1 {
            rig.topology = with.clone();
            let mut taker = lane(&rig, HIGH).await;
            let got = taker.exactly(high).await;
            taker.nothing().await;
            taker.complete(got).await;
        }
        drop(taker);
    }
    // Nothing was left in the lane by the rounds without it.
    rig.topology = with;
    lane(&rig, HIGH).await.nothing().await;
}

#[tokio::test]
async fn what_is_given_back_for_later_waits_its_time_in_its_lane_at_no_cost() {
    let rig = with_lanes().await;
    to_lane(&rig, HIGH, &["x"]).await;
    let (mut normal, mut high) = (lane(&rig, 0).await, lane(&rig, HIGH).await);
    for (attempt, millis) in (1..).zip([300, 0, 120]) {
        let delivery = high.one().await;
        assert_eq!(delivery.attempt, attempt);
        let (after, from) = (Duration::from_millis(millis), std::time::Instant::now());
        high.settle(delivery, Verdict::Release { after }).await;
        let delivery = high.one().await;
        assert!(from.elapsed() >= after, "{:?}", from.elapsed());
        assert_eq!(delivery.attempt, attempt);
        high.settle(
            delivery,
            Verdict::Retry {
                after: Duration::ZERO,
            },
        )
        .await;
    }
    normal.nothing().await;
}
