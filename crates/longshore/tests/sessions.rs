//! Sessions: order and exclusion per key, over workers that come, go, fail and lose what they own.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore::{
    Backoff, Context, Draft, HandlerError, Health, Queue, Router, Worker, WorkerHandle,
};
use longshore_core::{Destination, Envelope, Outgoing, Part};
use queue_under_test::{Log, Order, QueueUnderTest, until};
use tokio::time::Instant;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One start of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    worker: usize,
    key: String,
    id: u64,
    attempt: u32,
    token: u64,
    at: Instant,
}

/// What handlers do with each message, by its id and attempt.
type Act = Arc<dyn Fn(&Start) -> (Duration, Result<(), HandlerError>) + Send + Sync>;

/// A queue with sessions, and everything its handlers did.
#[derive(Clone)]
struct Sessions {
    under_test: Arc<QueueUnderTest>,
    started: Log<Start>,
    ended: Log<Start>,
    /// By worker and key.
    running: Arc<Mutex<BTreeMap<(usize, String), usize>>>,
    most_running: Arc<Mutex<usize>>,
}

/// Leaves the running ones also when the handler is dropped.
struct Inside(Sessions, Start);

impl Drop for Inside {
    fn drop(&mut self) {
        let of = (self.1.worker, self.1.key.clone());
        let mut running = self.0.running.lock().unwrap();
        let left = running[&of] - 1;
        match left {
            0 => running.remove(&of),
            left => running.insert(of, left),
        };
    }
}

impl Sessions {
    fn new(partitions: u16) -> Self {
        let mut under_test = QueueUnderTest::new();
        under_test.queue = Queue::new("orders").sessions(partitions);
        Self {
            under_test: Arc::new(under_test),
            started: Log::new(),
            ended: Log::new(),
            running: Arc::default(),
            most_running: Arc::default(),
        }
    }

    async fn publish(&self, key: &str, ids: impl IntoIterator<Item = u64>) {
        let draft = |id| Draft::new(&Order { id }).key(key.to_owned());
        let (client, queue) = (&self.under_test.client, &self.under_test.queue);
        for answer in client.publish_all(queue, ids.into_iter().map(draft)).await {
            answer.unwrap();
        }
    }

    /// A worker as if in another process.
    fn worker(&self, worker: usize, act: &Act) -> Worker {
        let client = self.under_test.another_client();
        let (sessions, act) = (self.clone(), Arc::clone(act));
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            let (sessions, act) = (sessions.clone(), Arc::clone(&act));
            async move {
                let start = Start {
                    worker,
                    key: cx.key().unwrap().to_owned(),
                    id: order.id,
                    attempt: cx.attempt(),
                    token: cx.session().token(),
                    at: Instant::now(),
                };
                let inside = sessions.enter(start.clone());
                let (takes, result) = act(&start);
                let lost = cx.cancellation();
                tokio::select! {
                    () = lost.cancelled() => return Err(HandlerError::from("cancelled")),
                    () = tokio::time::sleep(takes) => {}
                }
                drop(inside);
                sessions.ended.add(start);
                result
            }
        });
        Worker::new(&client, &self.under_test.queue, router)
            .backoff(Backoff::new(ms(10), ms(50)))
            .max_attempts(100)
    }

    fn enter(&self, start: Start) -> Inside {
        let mut running = self.running.lock().unwrap();
        let of_key = running
            .entry((start.worker, start.key.clone()))
            .or_default();
        *of_key += 1;
        assert_eq!(*of_key, 1, "two of one key in one process: {start:?}");
        let all: usize = running.values().sum();
        let mut most = self.most_running.lock().unwrap();
        *most = all.max(*most);
        self.started.add(start.clone());
        drop((running, most));
        Inside(self.clone(), start)
    }

    fn running_of(&self, key: &str) -> usize {
        let running = self.running.lock().unwrap();
        let of_key = running.iter().filter(|((_, k), _)| k == key);
        of_key.map(|(_, running)| running).sum()
    }

    /// Each key's messages started in order, none before the one before it had succeeded, and the
    /// attempt numbers of each message grow.
    fn assert_ordered(&self, keys: usize, messages: u64) {
        let mut by_key: BTreeMap<String, Vec<Start>> = BTreeMap::new();
        for start in self.started.all() {
            by_key.entry(start.key.clone()).or_default().push(start);
        }
        assert_eq!(by_key.len(), keys);
        let ended: BTreeSet<(String, u64)> = self
            .ended
            .all()
            .into_iter()
            .map(|start| (start.key, start.id))
            .collect();
        for (key, starts) in by_key {
            let mut last: Option<&Start> = None;
            for start in &starts {
                match last {
                    None => assert_eq!(start.id, 1, "{start:?}"),
                    Some(last) if last.id == start.id => {
                        assert!(last.attempt < start.attempt, "{last:?} then {start:?}");
                        assert!(last.token <= start.token, "{last:?} then {start:?}");
                    }
                    Some(last) => {
                        assert_eq!(last.id + 1, start.id, "{last:?} then {start:?}");
                        assert!(last.token <= start.token, "{last:?} then {start:?}");
                    }
                }
                last = Some(start);
            }
            assert_eq!(last.unwrap().id, messages, "{key}");
            for id in 1..=messages {
                assert!(ended.contains(&(key.clone(), id)), "{key} {id}");
            }
        }
    }
}

/// Succeeds after this long.
fn takes(time: Duration) -> Act {
    Arc::new(move |_| (time, Ok(())))
}

/// Takes 1 to 20 ms, and every tenth start fails.
fn unreliable() -> Act {
    Arc::new(|start| {
        let dice = (start.id * 7 + start.key.len() as u64 + u64::from(start.attempt) * 13)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 32;
        let result = match dice % 10 {
            0 => Err(HandlerError::from("bad luck")),
            _ => Ok(()),
        };
        (ms(1 + dice % 20), result)
    })
}

async fn spread(workers: &[&WorkerHandle], partitions: usize) -> Duration {
    let asked = Instant::now();
    until("an even spread", || {
        let owned: Vec<usize> = workers
            .iter()
            .map(|worker| worker.figures().partitions.len())
            .collect();
        let (most, least) = (owned.iter().max().unwrap(), owned.iter().min().unwrap());
        owned.iter().sum::<usize>() == partitions && most - least <= 1
    })
    .await;
    let mut indices = BTreeSet::new();
    for worker in workers {
        for partition in worker.figures().partitions {
            assert!(indices.insert(partition.index), "two own {partition:?}");
        }
    }
    asked.elapsed()
}

fn key(n: usize) -> String {
    format!("customer-{n}")
}

#[tokio::test(start_paused = true)]
async fn order_and_exclusion_hold_while_handlers_fail_and_workers_come_pause_and_go() {
    let sessions = Sessions::new(16);
    for n in 0..40 {
        sessions.publish(&key(n), 1..=50).await;
    }
    let act = unreliable();
    let first = sessions.worker(1, &act).start().await.unwrap();
    let second = sessions.worker(2, &act).start().await.unwrap();
    tokio::time::sleep(secs(2)).await;
    let third = sessions.worker(3, &act).start().await.unwrap();
    tokio::time::sleep(ms(700)).await;
    first.pause();
    tokio::time::sleep(ms(1_200)).await;
    second.stop().await;
    first.resume();
    tokio::time::sleep(ms(300)).await;
    let fourth = sessions
        .worker(4, &act)
        .concurrency(3)
        .start()
        .await
        .unwrap();
    sessions.under_test.settled().await;
    for worker in [first, third, fourth] {
        worker.stop().await;
    }
    sessions.assert_ordered(40, 50);
    // No lock was lost, so no two workers ever had one key at a time, and every retry was counted.
    let starts = sessions.started.all();
    let ends = sessions.ended.len();
    assert_eq!(starts.len(), ends, "nothing was cancelled");
    assert!(sessions.under_test.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn order_and_exclusion_hold_while_locks_and_ownerships_are_lost() {
    locks_and_ownerships_are_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_exclusion_hold_over_drivers_that_run_side_by_side() {
    locks_and_ownerships_are_lost().await;
}

async fn locks_and_ownerships_are_lost() {
    let sessions = Sessions::new(4);
    for n in 0..10 {
        sessions.publish(&key(n), 1..=40).await;
    }
    let act = unreliable();
    let mut workers = Vec::new();
    for worker in 1..=3 {
        workers.push(sessions.worker(worker, &act).start().await.unwrap());
    }
    let name = longshore::Name::new("orders").unwrap();
    for round in 0..8 {
        tokio::time::sleep(ms(150)).await;
        match round % 2 {
            0 => sessions.under_test.broker.lose_locks(),
            _ => {
                let broker = &sessions.under_test.broker;
                let lose = || broker.lose_ownership(&name, round / 2);
                until("somebody owns it", lose).await;
            }
        }
    }
    sessions.under_test.settled().await;
    for worker in workers {
        worker.stop().await;
    }
    sessions.assert_ordered(10, 40);
    let tokens: BTreeSet<u64> = sessions.started.all().iter().map(|s| s.token).collect();
    assert!(tokens.len() > 1, "tokens grow: {tokens:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_its_next_attempt_holds_back_its_own_key_alone() {
    let sessions = Sessions::new(1);
    let act: Act = Arc::new(|start| {
        let fails = start.key == "slow" && start.id == 1 && start.attempt < 3;
        let result = match fails {
            true => Err(HandlerError::retry_after(secs(3_600), "later")),
            false => Ok(()),
        };
        (ms(1), result)
    });
    sessions.publish("slow", 1..=3).await;
    sessions.publish("quick", 1..=200).await;
    let worker = sessions.worker(1, &act).start().await.unwrap();
    let begun = Instant::now();
    sessions.started.reaches(201).await;
    assert!(begun.elapsed() < secs(60), "{:?}", begun.elapsed());
    sessions.under_test.settled().await;
    // A delay in a session is cut to ten minutes.
    let waited = begun.elapsed();
    assert!((secs(1_200)..secs(1_210)).contains(&waited), "{waited:?}");
    let slow = sessions
        .started
        .all()
        .into_iter()
        .filter(|s| s.key == "slow");
    let slow: Vec<_> = slow.map(|s| (s.id, s.attempt)).collect();
    assert_eq!(slow, [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]);
    let figures = worker.figures();
    assert_eq!((figures.started, figures.completed), (205, 203));
    assert_eq!((figures.retried, figures.released), (2, 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_dead_letter_the_next_message_of_the_session_runs() {
    let sessions = Sessions::new(4);
    let act: Act = Arc::new(|start| {
        let result = match start.id {
            2 => Err(HandlerError::from("never")),
            _ => Ok(()),
        };
        (ms(1), result)
    });
    sessions.publish("a", 1..=3).await;
    let worker = sessions.worker(1, &act).max_attempts(3);
    let worker = worker.start().await.unwrap();
    sessions.under_test.settled().await;
    let starts: Vec<_> = sessions
        .started
        .all()
        .iter()
        .map(|s| (s.id, s.attempt))
        .collect();
    assert_eq!(starts, [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)]);
    let letter = sessions.under_test.letter().await;
    assert_eq!(letter.reason.as_str(), "exhausted");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn partitions_spread_evenly_over_the_workers_there_are() {
    let sessions = Sessions::new(16);
    let act = takes(ms(1));
    let mut workers: Vec<WorkerHandle> = Vec::new();
    for number in [1, 2, 3, 5, 20] {
        while workers.len() < number {
            let worker = sessions.worker(workers.len(), &act).start().await.unwrap();
            workers.push(worker);
        }
        let took = spread(&workers.iter().collect::<Vec<_>>(), 16).await;
        assert!(took <= secs(10), "{number} workers took {took:?}");
    }
    for number in [3, 1] {
        while workers.len() > number {
            workers.pop().unwrap().stop().await;
        }
        let took = spread(&workers.iter().collect::<Vec<_>>(), 16).await;
        assert!(took <= secs(10), "{number} workers took {took:?}");
    }
    let tokens: Vec<u64> = workers[0]
        .figures()
        .partitions
        .iter()
        .map(|p| p.token)
        .collect();
    assert!(tokens.iter().all(|token| *token > 0), "{tokens:?}");
    workers.pop().unwrap().stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_moves_only_once_its_handlers_have_ended_and_nothing_else_waits_for_that() {
    let sessions = Sessions::new(8);
    let act: Act = Arc::new(|start| (if start.id == 1 { secs(30) } else { ms(1) }, Ok(())));
    for n in 0..8 {
        sessions.publish(&key(n), 1..=3).await;
    }
    let first = sessions.worker(1, &act).start().await.unwrap();
    sessions.started.reaches(8).await;
    let second = sessions.worker(2, &act).start().await.unwrap();
    tokio::time::sleep(secs(20)).await;
    assert_eq!(
        sessions.started.len(),
        8,
        "what runs keeps its key everywhere"
    );
    let took = spread(&[&first, &second], 8).await;
    assert!(took <= secs(20), "{took:?}");
    sessions.under_test.settled().await;
    sessions.assert_ordered(8, 3);
    assert!(
        sessions
            .started
            .all()
            .iter()
            .all(|start| start.attempt == 1)
    );
    let workers: BTreeSet<usize> = sessions.started.all().iter().map(|s| s.worker).collect();
    assert_eq!(workers, BTreeSet::from([1, 2]));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_gives_its_partitions_up_and_takes_its_share_again() {
    let sessions = Sessions::new(8);
    let act = takes(ms(1));
    let first = sessions.worker(1, &act).start().await.unwrap();
    let second = sessions.worker(2, &act).start().await.unwrap();
    spread(&[&first, &second], 8).await;
    first.pause();
    spread(&[&second], 8).await;
    assert!(first.figures().partitions.is_empty());
    sessions.publish("a", 1..=3).await;
    sessions.under_test.settled().await;
    assert!(sessions.started.all().iter().all(|start| start.worker == 2));
    first.resume();
    let took = spread(&[&first, &second], 8).await;
    assert!(took <= secs(10), "{took:?}");
    assert_eq!(first.health(), Health::Ready);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_sessions_over_with_the_attempts_they_have_used() {
    let sessions = Sessions::new(2);
    let hangs: Act = Arc::new(|start| match (&start.key[..], start.id) {
        ("hangs", 1) => (secs(3_000), Ok(())),
        ("waits", 1) if start.attempt == 1 => {
            (ms(1), Err(HandlerError::retry_after(secs(60), "later")))
        }
        _ => (ms(1), Ok(())),
    });
    let worker = sessions.worker(1, &hangs).stop_deadline(secs(5));
    let worker = worker.time_limit(secs(3_600)).start().await.unwrap();
    for key in ["hangs", "waits"] {
        sessions.publish(key, 1..=3).await;
    }
    sessions.ended.reaches(1).await;
    sessions.started.reaches(2).await;
    tokio::time::sleep(ms(50)).await;
    let asked = Instant::now();
    worker.stop().await;
    let took = asked.elapsed();
    assert!((secs(5)..=ms(5_500)).contains(&took), "{took:?}");
    let worker = sessions.worker(2, &takes(ms(1))).start().await.unwrap();
    sessions.under_test.settled().await;
    worker.stop().await;
    let of = |key: &str| -> Vec<_> {
        let started = sessions.started.all();
        let of_key = started.iter().filter(|start| start.key == key);
        of_key.map(|s| (s.worker, s.id, s.attempt)).collect()
    };
    for key in ["hangs", "waits"] {
        assert_eq!(
            of(key),
            [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 3, 1)],
            "{key}"
        );
    }
}

async fn publish_plain(sessions: &Sessions, key: Option<&str>, id: u64) {
    let mut envelope = Envelope::new("order.placed", format!(r#"{{"id":{id}}}"#));
    envelope.key = key.map(Into::into);
    envelope.id = format!("{}-{id}", key.unwrap_or("none")).into();
    let name = longshore::Name::new(sessions.under_test.queue.name()).unwrap();
    let out = Outgoing {
        to: Destination::Queue(name, Part::Lane(0)),
        envelope,
        delay: Duration::ZERO,
        dedup_window: None,
    };
    let transport = sessions.under_test.broker.open();
    transport.publish(vec![out]).await.remove(0).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_plain_clients_publish_is_moved_in_order_and_needs_a_key() {
    let sessions = Sessions::new(4);
    let client = &sessions.under_test.client;
    client.declare(&sessions.under_test.queue).await.unwrap();
    for id in 1..=20 {
        for n in 0..5 {
            publish_plain(&sessions, Some(&key(n)), id).await;
        }
    }
    publish_plain(&sessions, None, 1).await;
    publish_plain(&sessions, Some(""), 1).await;
    let act = takes(ms(1));
    let first = sessions.worker(1, &act).start().await.unwrap();
    let second = sessions.worker(2, &act).start().await.unwrap();
    sessions.ended.reaches(50).await;
    first.stop().await;
    for id in 21..=30 {
        for n in 0..5 {
            publish_plain(&sessions, Some(&key(n)), id).await;
        }
    }
    sessions.ended.reaches(150).await;
    sessions.under_test.settled().await;
    second.stop().await;
    sessions.assert_ordered(5, 30);
    let letters = sessions.under_test.letters().await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.reason.as_str())
        .collect();
    assert_eq!(reasons, ["key-missing"; 2]);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_keys_passes_through_a_window_of_one_size() {
    let sessions = Sessions::new(16);
    let worker = sessions
        .worker(1, &takes(Duration::ZERO))
        .start()
        .await
        .unwrap();
    spread(&[&worker], 16).await;
    for round in 0..25_u64 {
        let drafts = (0..4_000).map(|n| {
            let id = round * 4_000 + n;
            Draft::new(&Order { id }).key(format!("key-{id}"))
        });
        let (client, queue) = (&sessions.under_test.client, &sessions.under_test.queue);
        for answer in client.publish_all(queue, drafts).await {
            answer.unwrap();
        }
        while sessions.ended.len() < (round as usize + 1) * 4_000 {
            for partition in worker.figures().partitions {
                assert!(partition.unsettled <= 32, "{partition:?}");
            }
            tokio::time::sleep(ms(1)).await;
        }
    }
    sessions.under_test.settled().await;
    assert_eq!(worker.figures().completed, 100_000);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_back_unexplained_twice_runs_beside_no_other_such() {
    let sessions = Sessions::new(8);
    let act: Act = Arc::new(|start| {
        let suspicious = start.key != "innocent" && start.attempt < 3;
        (if suspicious { secs(3_000) } else { secs(1) }, Ok(()))
    });
    let worker = sessions.worker(1, &act).time_limit(secs(7_200));
    let worker = worker.start().await.unwrap();
    for n in 0..6 {
        sessions.publish(&key(n), [1]).await;
    }
    for starts in [6, 12] {
        sessions.started.reaches(starts).await;
        sessions.under_test.broker.lose_locks();
    }
    sessions.publish("innocent", 1..=3).await;
    sessions.under_test.settled().await;
    worker.stop().await;
    let third: Vec<Start> = sessions.started.all().split_off(12);
    let mut alone: Vec<Instant> = third
        .iter()
        .filter(|s| s.attempt == 3)
        .map(|s| s.at)
        .collect();
    alone.sort_unstable();
    assert_eq!(alone.len(), 6);
    for pair in alone.windows(2) {
        assert!(pair[1] - pair[0] >= secs(1), "two at a time: {alone:?}");
    }
    let first = alone[0];
    let innocent = third.iter().filter(|s| s.key == "innocent");
    assert!(innocent.clone().count() == 3 && innocent.clone().all(|s| s.at - first < secs(5)));
}

#[tokio::test(start_paused = true)]
async fn with_one_attempt_a_message_whose_lock_was_lost_is_abandoned() {
    let sessions = Sessions::new(1);
    let worker = sessions.worker(1, &takes(secs(10))).max_attempts(1);
    let worker = worker.start().await.unwrap();
    sessions.publish("a", 1..=2).await;
    sessions.started.reaches(1).await;
    sessions.under_test.broker.lose_locks();
    sessions.under_test.settled().await;
    let letters = sessions.under_test.letters().await;
    assert!(!letters.is_empty());
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason.as_str() == "abandoned")
    );
    let starts: BTreeSet<u64> = sessions.started.all().iter().map(|s| s.id).collect();
    assert_eq!(starts.len(), sessions.started.len(), "none twice");
    worker.stop().await;
}

async fn all_slots_are_used_and_no_more() {
    let sessions = Sessions::new(2);
    let worker = sessions.worker(1, &takes(ms(20))).concurrency(12);
    let worker = worker.start().await.unwrap();
    // All keys of one partition, which belongs to one driver.
    let of_one = |key: &String| longshore_core::partition_of(&key.as_str().into(), 2) == 0;
    let keys: Vec<String> = (0..).map(key).filter(of_one).take(30).collect();
    for key in &keys {
        sessions.publish(key, [1]).await;
    }
    sessions.under_test.settled().await;
    assert_eq!(*sessions.most_running.lock().unwrap(), 12);
    worker.set_concurrency(3);
    *sessions.most_running.lock().unwrap() = 0;
    for n in 0..30 {
        sessions.publish(&key(n + 1_000), [1]).await;
    }
    sessions.under_test.settled().await;
    assert_eq!(*sessions.most_running.lock().unwrap(), 3);
    assert_eq!(sessions.running_of(&keys[0]), 0);
    worker.stop().await;
}

#[tokio::test]
async fn one_partition_may_use_every_handler_slot() {
    all_slots_are_used_and_no_more().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_partition_may_use_every_handler_slot_with_two_drivers() {
    all_slots_are_used_and_no_more().await;
}
