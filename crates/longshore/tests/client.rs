//! Publishing, figures and dead letters, seen from a client.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::time::Duration;

use longshore::{
    Client, ConnectOptions, Context, Declare, Draft, Error, ErrorKind, HandlerError, Limits,
    Published, Queue, Router, Topic,
};
use longshore_memory::MemoryBroker;
use queue_under_test::{Log, Order, QueueUnderTest, Refund};
use tokio::time::Instant;

fn kinds(answers: &[longshore::Result<Published>]) -> Vec<Option<ErrorKind>> {
    let kind = |answer: &longshore::Result<_>| answer.as_ref().err().map(Error::kind);
    answers.iter().map(kind).collect()
}

#[tokio::test]
async fn a_publish_answers_once_the_message_is_stored() {
    let under_test = QueueUnderTest::new();
    let order = Order { id: 1 };
    let answer = under_test.client.publish(&under_test.queue, &order).await;
    assert_eq!(answer.unwrap(), Published::Accepted);
    assert_eq!(under_test.counts().await, (1, 0, 0, 0));
    let delayed = under_test.client.publish(&under_test.queue, &order);
    delayed.delay(Duration::from_secs(60)).await.unwrap();
    assert_eq!(under_test.counts().await, (1, 0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_starts_when_its_time_has_come() {
    let (under_test, starts) = (QueueUnderTest::new(), Log::new());
    let log = starts.clone();
    let router = Router::new().handle_fn(move |_: Order, _: Context| {
        log.add(Instant::now());
        async { Ok(()) }
    });
    let worker = under_test.worker(router).start().await.unwrap();
    let (minute, begun) = (Duration::from_secs(60), Instant::now());
    let publish = under_test
        .client
        .publish(&under_test.queue, &Order { id: 1 });
    publish.delay(minute).await.unwrap();
    starts.reaches(1).await;
    let waited = starts.all()[0] - begun;
    assert!(waited >= minute && waited < minute * 2, "{waited:?}");
    worker.stop().await;
}

/// One for each limit of what can be sent.
fn beyond_limits() -> Vec<(&'static str, Draft)> {
    let draft = || Draft::new(&Order { id: 1 });
    let long = || "x".repeat(129);
    let many = (0..65).fold(draft(), |d, n| d.header(format!("h{n}"), "v"));
    vec![
        (
            "body",
            Draft::raw("order.placed", "", vec![b' '; (1 << 20) + 1]),
        ),
        ("no type", Draft::raw("", "", "{}")),
        ("long type", Draft::raw(long(), "", "{}")),
        ("steering type", Draft::raw("a\nb", "", "{}")),
        ("content type", Draft::raw("order.placed", long(), "{}")),
        ("id", draft().id(long())),
        ("steering id", draft().id("a\u{1b}[2J")),
        ("key", draft().key(long())),
        ("lane", draft().priority("a b")),
        ("steering lane", draft().priority("high.b7")),
        ("lane the queue has not", draft().priority("high")),
        ("correlation id", draft().correlation_id(long())),
        ("headers", many),
        ("header bytes", draft().header("h", vec![0; 32 * 1024])),
        ("header name", draft().header(long(), "v")),
        ("empty header name", draft().header("", "v")),
        ("reserved header", draft().header("x-death", "v")),
        (
            "delay",
            draft().delay(Duration::from_secs(366 * 24 * 3600 + 1)),
        ),
    ]
}

#[tokio::test]
async fn what_breaks_a_limit_is_invalid_and_sends_and_declares_nothing() {
    let under_test = QueueUnderTest::new();
    let (client, queue) = (&under_test.client, &under_test.queue);
    for (what, draft) in beyond_limits() {
        let answers = client.publish_all(queue, [draft]).await;
        assert_eq!(kinds(&answers), [Some(ErrorKind::Invalid)], "{what}");
        let text = answers[0].as_ref().unwrap_err().to_string();
        assert!(
            !text.contains(['\n', '\u{1b}']) && text.len() < 300,
            "{text}"
        );
    }
    let missing = client.stats(queue).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NoSuchQueue, "not even declared");
}

#[tokio::test]
async fn what_is_exactly_at_its_limit_is_sent() {
    let under_test = QueueUnderTest::new();
    let draft = || Draft::new(&Order { id: 1 });
    let edge = "x".repeat(128);
    let many = (0..64).fold(draft(), |d, n| d.header(format!("h{n}"), "v"));
    let drafts = [
        Draft::raw("order.placed", "", vec![b' '; 1 << 20]),
        draft()
            .id(edge.clone())
            .key(edge.clone())
            .correlation_id(edge),
        many,
        draft().header("h", vec![0; 32 * 1024 - 1]),
        draft().delay(Duration::from_secs(366 * 24 * 3600)),
    ];
    let answers = under_test
        .client
        .publish_all(&under_test.queue, drafts)
        .await;
    assert_eq!(kinds(&answers), [None; 5]);
}

#[tokio::test]
async fn a_bad_one_in_a_batch_costs_its_neighbours_nothing_and_answers_keep_their_order() {
    let under_test = QueueUnderTest::new();
    let drafts = (0..6).map(|id| {
        let draft = Draft::new(&Order { id });
        if id % 3 == 1 {
            draft.id("x".repeat(129))
        } else {
            draft
        }
    });
    let answers = under_test
        .client
        .publish_all(&under_test.queue, drafts)
        .await;
    let bad = Some(ErrorKind::Invalid);
    assert_eq!(kinds(&answers), [None, bad, None, None, bad, None]);
    assert_eq!(under_test.counts().await, (4, 0, 0, 0));
    let none: [Draft; 0] = [];
    assert!(
        under_test
            .client
            .publish_all(&under_test.queue, none)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_full_queue_refuses_what_does_not_fit_and_keeps_the_order_of_answers() {
    let options = ConnectOptions::default();
    let broker = MemoryBroker::with_capacity(&options, 2);
    let client = Client::new(broker.open(), &options, Declare::Create, Limits::default());
    let drafts = (0..4).map(|id| {
        let draft = Draft::new(&Order { id });
        if id == 1 {
            draft.key("x".repeat(129))
        } else {
            draft
        }
    });
    let answers = client.publish_all(&Queue::new("small"), drafts).await;
    let (invalid, full) = (Some(ErrorKind::Invalid), Some(ErrorKind::Full));
    assert_eq!(kinds(&answers), [None, invalid, None, full]);
}

#[tokio::test]
async fn a_read_only_client_creates_nothing() {
    let under_test = QueueUnderTest::new();
    let client = under_test.read_only_client();
    let (queue, order) = (&under_test.queue, Order { id: 1 });
    let missing = |error: Error| assert_eq!(error.kind(), ErrorKind::NoSuchQueue);
    missing(client.publish(queue, &order).await.unwrap_err());
    missing(client.declare(queue).await.unwrap_err());
    missing(client.stats(queue).await.unwrap_err());
    let batch = [Draft::new(&order), Draft::new(&order).id("x".repeat(129))];
    let answers = client.publish_all(queue, batch).await;
    assert_eq!(
        kinds(&answers),
        [Some(ErrorKind::NoSuchQueue), Some(ErrorKind::Invalid)]
    );
    under_test.client.declare(queue).await.unwrap();
    client.publish(queue, &order).await.unwrap();
    let bound = queue.clone().subscribe_to(&Topic::new("placed"));
    missing(client.declare(&bound).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_topic_reaches_every_queue_bound_to_it() {
    let under_test = QueueUnderTest::new();
    let (client, topic) = (&under_test.client, Topic::new("order-events"));
    let order = Order { id: 1 };
    let nobody = client.publish(&topic, &order).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NoSuchQueue);
    let bound = ["billing", "stock", "mail"].map(|name| Queue::new(name).subscribe_to(&topic));
    for queue in &bound {
        client.declare(queue).await.unwrap();
    }
    client.publish(&topic, &order).id("one").await.unwrap();
    for queue in &bound {
        let seen = Log::new();
        let log = seen.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: longshore::Context| {
            log.add((order.id, cx.id().to_owned()));
            std::future::ready(Ok(()))
        });
        let worker = longshore::Worker::new(client, queue, router)
            .start()
            .await
            .unwrap();
        seen.reaches(1).await;
        worker.stop().await;
        assert_eq!(seen.all(), [(1, "one".to_owned())]);
    }
}

#[tokio::test]
async fn a_closed_client_answers_closed_on_every_clone() {
    let under_test = QueueUnderTest::new();
    under_test.publish_orders([1]).await;
    let clone = under_test.client.clone();
    under_test.client.close().await;
    let queue = &under_test.queue;
    let closed = |error: Error| assert_eq!(error.kind(), ErrorKind::Closed);
    closed(clone.publish(queue, &Order { id: 2 }).await.unwrap_err());
    closed(clone.stats(queue).await.unwrap_err());
    closed(clone.declare(&Queue::new("other")).await.unwrap_err());
    closed(clone.dead_letters(queue).list(None, 1).await.unwrap_err());
    let other = under_test.another_client();
    assert_eq!(
        other.stats(queue).await.unwrap().ready,
        1,
        "the broker is not"
    );
}

/// A queue with this many dead letters; those with odd numbers are refunds.
async fn with_dead_letters(letters: u64) -> QueueUnderTest {
    let under_test = QueueUnderTest::new();
    let router = Router::new()
        .handle_fn(|_: Order, _| async { Err::<(), _>(HandlerError::permanent("order")) })
        .handle_fn(|_: Refund, _| async { Err::<(), _>(HandlerError::permanent("refund")) });
    for n in 0..letters {
        if n.is_multiple_of(2) {
            under_test.publish(&Order { id: n }).await;
        } else {
            under_test.publish(&Refund { order: n }).await;
        }
    }
    let worker = under_test.worker(router).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(under_test.letters().await.len() as u64, letters);
    under_test
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_oldest_first_and_page_by_page() {
    let under_test = with_dead_letters(25).await;
    let dead = under_test.client.dead_letters(&under_test.queue);
    let all = dead.list(None, 100).await.unwrap();
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(after.as_ref(), 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        paged.extend(page);
    }
    let ids = |letters: &[longshore::DeadLetter]| {
        letters.iter().map(|l| l.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&paged), ids(&all));
    assert_eq!(dead.peek().await.unwrap().unwrap().id, all[0].id);
    assert_eq!(
        dead.peek().await.unwrap().unwrap().id,
        all[0].id,
        "looking changes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn one_can_be_redriven_or_discarded_once() {
    let under_test = with_dead_letters(2).await;
    let dead = under_test.client.dead_letters(&under_test.queue);
    let all = dead.list(None, 2).await.unwrap();
    dead.redrive(&all[0].id).await.unwrap();
    dead.discard(&all[1].id).await.unwrap();
    assert_eq!(under_test.counts().await, (1, 0, 0, 0));
    for letter in &all {
        let stale = |error: Error| assert_eq!(error.kind(), ErrorKind::Stale);
        stale(dead.redrive(&letter.id).await.unwrap_err());
        stale(dead.discard(&letter.id).await.unwrap_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_chooses_and_the_progress_is_told_page_by_page() {
    let under_test = with_dead_letters(250).await;
    let dead = under_test.client.dead_letters(&under_test.queue);
    let mut told = Vec::new();
    let progress = dead
        .redrive_where(
            |l| &*l.envelope.kind == "refund",
            |p| told.push((p.seen, p.done)),
        )
        .await
        .unwrap();
    assert_eq!(
        (progress.seen, progress.done, progress.failed),
        (250, 125, 0)
    );
    assert_eq!(told, [(100, 50), (200, 100), (250, 125)]);
    assert_eq!(under_test.counts().await, (125, 0, 0, 125));
    let left = under_test.letters().await;
    assert!(left.iter().all(|l| &*l.envelope.kind == "order.placed"));
    let progress = dead
        .discard_where(|l| l.detail == "order", |_| ())
        .await
        .unwrap();
    assert_eq!((progress.seen, progress.done), (125, 125));
    assert_eq!(under_test.counts().await, (125, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redriving_all_ends_although_they_fail_again_meanwhile() {
    let under_test = with_dead_letters(230).await;
    let router = Router::new().fallback(|_| async { Err(HandlerError::permanent("again")) });
    let worker = under_test.worker(router).start().await.unwrap();
    let dead = under_test.client.dead_letters(&under_test.queue);
    let all_are_back = |_| {
        let back = under_test.settled();
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(back));
    };
    let progress = dead.redrive_all(all_are_back).await.unwrap();
    assert_eq!((progress.seen, progress.done), (230, 230));
    worker.stop().await;
    let letters = under_test.letters().await;
    assert_eq!(letters.len(), 230);
    assert!(letters.iter().all(|letter| letter.detail == "again"));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let url = "memory:canary-name";
    let client = longshore::connect(url).await.unwrap();
    let draft = Draft::raw("order.placed", "", "canary-body");
    let draft = draft.header("authorization", "canary-token");
    let shown = format!(
        "{draft:?} {client:?} {:?}",
        longshore::Connect::new("amqp://u:canary@h")
    );
    assert!(!shown.contains("canary"), "{shown}");
    let queue = Queue::new("orders");
    let answers = client
        .publish_all(&queue, [draft.id("x".repeat(129))])
        .await;
    let shown = format!("{answers:?} {:?}", client.dead_letters(&queue));
    assert!(!shown.contains("canary"), "{shown}");
}
