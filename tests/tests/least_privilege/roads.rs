//! All that somebody in some role does, as an ordinary program does it. What is refused panics.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore::{
    Backoff, Client, Connect, Context, HandlerError, Message, Published, Queue, Reply, Request,
    Router, Topic, Worker, WorkerHandle,
};
use longshore_tests::{
    job::{Job, publish_jobs},
    waiting::until,
    witness::{Witness, dead, only_dead},
};
use serde::{Deserialize, Serialize};

const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
pub(crate) struct GetQuote;

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

impl Request for GetQuote {
    type Reply = u64;
}

async fn redriven_and_discarded(client: &Client, queue: &Queue, handled_again: impl AsyncFn()) {
    let letters = client.dead_letters(queue);
    let letter = only_dead(client, queue).await;
    letters.redrive(&letter.id).await.unwrap();
    handled_again().await;
    let letter = dead(client, queue, 1).await.remove(0);
    letters.discard(&letter.id).await.unwrap();
    until("the queue is empty", Duration::from_secs(10), async || {
        let stats = client.stats(queue).await.unwrap();
        (stats.ready == 0 && stats.dead == 0).then_some(())
    })
    .await;
}

/// A service with one queue, bound to a topic: retries, delays, dead letters, redrives, and answers.
pub(crate) async fn service(connect: Connect) {
    let client = &connect.open().await.unwrap();
    let topic = Topic::new("placed");
    let queue = &Queue::new("orders").subscribe_to(&topic);
    let witness = Witness::default();
    let worker = witness
        .worker(client, queue, |job, cx| match (job.number, cx.attempt()) {
            (0, 1) => Err(HandlerError::retry_after(BACKOFF, "again")),
            (1, _) => Err(HandlerError::permanent("no")),
            _ => Ok(()),
        })
        .await
        .unwrap();
    publish_jobs(client, queue, 3).await.unwrap();
    let delayed = client.publish(queue, &Job { number: 3 });
    delayed.delay(Duration::from_millis(120)).await.unwrap();
    client.publish(&topic, &Job { number: 4 }).await.unwrap();
    witness.starts(6).await;
    redriven_and_discarded(client, queue, async || drop(witness.starts(7).await)).await;
    worker.stop().await;
    client.close().await;
}

/// The same with a lane.
pub(crate) async fn lanes(connect: Connect) {
    let client = &connect.open().await.unwrap();
    let topic = Topic::new("placed");
    let queue = &Queue::new("orders").lanes(["high"]).subscribe_to(&topic);
    let witness = Witness::default();
    let worker = witness
        .worker(client, queue, |job, cx| match (job.number, cx.attempt()) {
            (0 | 1, 1) => Err(HandlerError::retry_after(BACKOFF, "again")),
            (1, _) => Err(HandlerError::permanent("no")),
            _ => Ok(()),
        })
        .await
        .unwrap();
    client.publish(queue, &Job { number: 0 }).await.unwrap();
    let high = client.publish(queue, &Job { number: 1 });
    high.priority("high").await.unwrap();
    let delayed = client.publish(queue, &Job { number: 2 });
    let delayed = delayed.priority("high").delay(Duration::from_millis(120));
    delayed.await.unwrap();
    for lane in ["high", "other"] {
        let copy = client.publish(&topic, &Job { number: 3 });
        copy.priority(lane).await.unwrap();
    }
    let seen = witness.starts(7).await;
    let high = |sight: &&_| matches!(sight, longshore_tests::witness::Sight { envelope, .. } if envelope.priority.as_deref() == Some("high"));
    assert_eq!(seen.iter().filter(high).count(), 4);
    redriven_and_discarded(client, queue, async || drop(witness.starts(9).await)).await;
    worker.stop().await;
    client.close().await;
}

/// Counts the messages of each session in its state.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<Vec<(u64, u64)>>>);

impl Counts {
    async fn worker(&self, client: &Client, queue: &Queue) -> WorkerHandle {
        let counts = Arc::clone(&self.0);
        let router = Router::new().handle_fn(move |job: Job, cx: Context| {
            let counts = Arc::clone(&counts);
            async move {
                let session = cx.session();
                let count = session.state::<u64>().await?.unwrap_or_default() + 1;
                session.set_state(&count)?;
                match (job.number, cx.attempt()) {
                    (0, 1) => return Err("again".into()),
                    (1, _) => return Err(HandlerError::permanent("no")),
                    (2, _) => session.clear_state()?,
                    _ => {}
                }
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.push((job.number, count));
                Ok::<_, HandlerError>(())
            }
        });
        let worker = Worker::new(client, queue, router);
        let worker = worker
            .lock(Duration::from_secs(2))
            .backoff(Backoff::new(BACKOFF, BACKOFF));
        worker.start().await.unwrap()
    }

    fn seen(&self) -> Vec<(u64, u64)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn reach(&self, count: usize) {
        until("all are counted", Duration::from_secs(20), async || {
            (self.seen().len() >= count).then_some(())
        })
        .await;
    }
}

async fn publish_keyed(client: &Client, queue: &Queue, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let job = client.publish(queue, &Job { number });
        let job = job
            .key(format!("key-{}", number % 8))
            .id(format!("job-{number}"));
        job.await.unwrap();
    }
}

/// Two workers share sessions with state and a dedup window; one hands over to the other.
pub(crate) async fn sessions(connect: Connect) {
    let clients = [
        connect.clone().open().await.unwrap(),
        connect.open().await.unwrap(),
    ];
    let queue = &Queue::new("invoices")
        .sessions(2)
        .dedup_window(Duration::from_secs(60));
    let (first, second) = (Counts::default(), Counts::default());
    // Into the plain queue, as a plain client would.
    publish_keyed(&clients[1], &Queue::new("invoices"), 8..16).await;
    let leaving = first.worker(&clients[0], queue).await;
    publish_keyed(&clients[0], queue, 0..8).await;
    let delayed = clients[0].publish(queue, &Job { number: 16 }).key("key-0");
    delayed.delay(Duration::from_millis(120)).await.unwrap();
    first.reach(16).await;
    let staying = second.worker(&clients[1], queue).await;
    let mut next = 17;
    until("the second works", Duration::from_secs(30), async || {
        publish_keyed(&clients[0], queue, next..next + 8).await;
        next += 8;
        (!second.seen().is_empty()).then_some(())
    })
    .await;
    leaving.stop().await;
    publish_keyed(&clients[1], queue, next..next + 8).await;
    let handled = next as usize + 8 - 1;
    until("all are counted", Duration::from_secs(20), async || {
        (first.seen().len() + second.seen().len() == handled).then_some(())
    })
    .await;
    let again = async || {
        until("it is dead again", Duration::from_secs(10), async || {
            let stats = clients[0].stats(queue).await.unwrap();
            (stats.dead == 1).then_some(())
        })
        .await;
    };
    redriven_and_discarded(&clients[0], queue, again).await;
    staying.stop().await;
    for client in clients {
        client.close().await;
    }
}

/// A queue with a dedup window, and nothing else.
pub(crate) async fn window(connect: Connect) {
    let client = &connect.open().await.unwrap();
    let queue = &Queue::new("orders").dedup_window(Duration::from_secs(60));
    let witness = Witness::default();
    let worker = witness.worker(client, queue, |job, cx| match (job.number, cx.attempt()) {
        (0, 1) => Err("again".into()),
        (1, _) => Err(HandlerError::permanent("no")),
        _ => Ok(()),
    });
    let worker = worker.await.unwrap();
    for number in [0, 1, 2, 2] {
        let job = client.publish(queue, &Job { number });
        job.id(format!("job-{number}")).await.unwrap();
    }
    witness.starts(4).await;
    redriven_and_discarded(client, queue, async || drop(witness.starts(5).await)).await;
    worker.stop().await;
    let seen = witness.seen();
    assert_eq!(seen.iter().filter(|sight| sight.number == 2).count(), 1);

    // The second of one id asks while the first is handled, and gets the same answer.
    let quotes = &Queue::new("quotes").dedup_window(Duration::from_secs(60));
    let desk = desk(client, quotes).await;
    let ask = || {
        client
            .request(quotes, &GetQuote)
            .id("a")
            .timeout(Duration::from_secs(20))
    };
    let (one, other) = tokio::join!(ask().into_future(), ask().into_future());
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    desk.stop().await;
    client.close().await;
}

/// Answers requests with how many there were.
pub(crate) async fn desk(client: &Client, queue: &Queue) -> WorkerHandle {
    let asked = Arc::new(AtomicU64::new(0));
    let router = Router::new().handle_fn(move |_: GetQuote, _: Context| {
        let count = asked.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            tokio::time::sleep(BACKOFF).await;
            Ok::<_, HandlerError>(Reply(count))
        }
    });
    let worker = Worker::new(client, queue, router);
    worker.start().await.unwrap()
}

/// Asks what others answer.
pub(crate) async fn requester(connect: Connect) {
    let client = connect.read_only().open().await.unwrap();
    let quotes = Queue::new("quotes");
    for n in 1..=3 {
        let asked = client.request(&quotes, &GetQuote);
        let quote = asked.timeout(Duration::from_secs(10)).await;
        assert_eq!(quote.unwrap(), n);
    }
    client.close().await;
}

/// Publishes to what others have declared.
pub(crate) async fn publisher(connect: Connect) {
    let client = connect.read_only().open().await.unwrap();
    let lanes = Queue::new("orders").lanes(["high"]);
    publish_jobs(&client, &Queue::new("orders"), 2)
        .await
        .unwrap();
    let high = client.publish(&lanes, &Job { number: 2 });
    high.priority("high").await.unwrap();
    let delayed = client.publish(&lanes, &Job { number: 3 });
    delayed.delay(Duration::from_millis(100)).await.unwrap();
    client
        .publish(&Topic::new("placed"), &Job { number: 4 })
        .await
        .unwrap();
    let sessions = Queue::new("invoices")
        .sessions(2)
        .dedup_window(Duration::from_secs(60));
    let keyed = client.publish(&sessions, &Job { number: 5 }).key("key");
    assert_eq!(keyed.id("job-5").await.unwrap(), Published::Accepted);
    client.close().await;
}

/// Lists, redrives and discards the dead letters of a queue that others work on.
pub(crate) async fn operator(connect: Connect) {
    let client = connect.read_only().open().await.unwrap();
    for queue in [
        Queue::new("orders").lanes(["high"]),
        Queue::new("invoices").sessions(2),
    ] {
        let letters = client.dead_letters(&queue);
        let found = dead(&client, &queue, 3).await;
        letters.redrive(&found[0].id).await.unwrap();
        letters.discard(&found[1].id).await.unwrap();
        letters.redrive_all(|_| {}).await.unwrap();
        until("nothing is dead", Duration::from_secs(10), async || {
            (client.stats(&queue).await.unwrap().dead == 0).then_some(())
        })
        .await;
    }
    client.close().await;
}

/// What an operator finds: three dead letters each in a lane and in sessions.
pub(crate) async fn leave_dead_letters(client: &Client) {
    for (queue, priority) in [
        (Queue::new("orders").lanes(["high"]), Some("high")),
        (Queue::new("invoices").sessions(2), None),
    ] {
        let witness = Witness::default();
        let never = |_: &_, _: &_| Err(HandlerError::permanent("no"));
        let worker = witness.worker(client, &queue, never).await.unwrap();
        for number in 0..3 {
            let job = client.publish(&queue, &Job { number });
            match priority {
                Some(lane) => job.priority(lane).await.unwrap(),
                None => job.key(format!("key-{number}")).await.unwrap(),
            };
        }
        dead(client, &queue, 3).await;
        worker.stop().await;
    }
}

/// What others do before a user sets out.
pub(crate) async fn nothing(_: Client) -> Option<WorkerHandle> {
    None
}

pub(crate) async fn declared(owner: Client) -> Option<WorkerHandle> {
    let queue = Queue::new("orders")
        .lanes(["high"])
        .subscribe_to(&Topic::new("placed"));
    owner.declare(&queue).await.unwrap();
    owner
        .declare(&Queue::new("invoices").sessions(2))
        .await
        .unwrap();
    // The first delay makes what all delays go through.
    let delayed = owner.publish(&queue, &Job { number: 0 });
    delayed.delay(Duration::from_millis(50)).await.unwrap();
    None
}

pub(crate) async fn answered(owner: Client) -> Option<WorkerHandle> {
    Some(desk(&owner, &Queue::new("quotes")).await)
}

pub(crate) async fn with_dead_letters(owner: Client) -> Option<WorkerHandle> {
    leave_dead_letters(&owner).await;
    None
}
