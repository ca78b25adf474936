//! Many copies of one id, three workers, one effect.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{
    Backoff, Client, Connect, Context, Draft, HandlerError, Queue, Router, Worker, WorkerHandle,
};
use longshore_testing::brokers;
use longshore_tests::{job::Job, unique, waiting::until};

const IDS: u64 = 500;

/// What happened to each job: how often it runs now, the most at once, how often it was done.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<BTreeMap<u64, Effect>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Effect {
    running: u32,
    most: u32,
    done: u32,
}

impl Effects {
    fn change(&self, number: u64, change: impl FnOnce(&mut Effect)) {
        let mut effects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(effects.entry(number).or_default());
    }

    fn all(&self) -> BTreeMap<u64, Effect> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn worker(&self, client: &Client, queue: &Queue) -> WorkerHandle {
        let effects = self.clone();
        let router = Router::new().handle_fn(move |job: Job, cx: Context| {
            let effects = effects.clone();
            async move {
                effects.change(job.number, |e| {
                    e.running += 1;
                    e.most = e.most.max(e.running);
                });
                tokio::time::sleep(Duration::from_millis(3)).await;
                let fails = job.number.is_multiple_of(10) && cx.attempt() == 1;
                effects.change(job.number, |e| {
                    e.running -= 1;
                    e.done += u32::from(!fails);
                });
                match fails {
                    true => Err("the first copy fails once".into()),
                    false => Ok::<_, HandlerError>(()),
                }
            }
        });
        Worker::new(client, queue, router)
            .lock(Duration::from_secs(3))
            .backoff(Backoff::new(
                Duration::from_millis(50),
                Duration::from_millis(50),
            ))
            .start()
            .await
            .unwrap()
    }
}

/// Three clients with a worker each publish every id at the same time.
async fn one_effect(url: &str, store: Option<&str>) {
    let connect = || async {
        let connect = Connect::new(url);
        let connect = match store {
            Some(store) => connect.store(store),
            None => connect,
        };
        connect.open().await.unwrap()
    };
    let queue = Queue::new(&unique("dedup")).dedup_window(Duration::from_secs(60));
    let effects = Effects::default();
    let (mut clients, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let client = connect().await;
        workers.push(effects.worker(&client, &queue).await);
        clients.push(client);
    }
    let publish = |client: Client, queue: Queue| async move {
        let numbers: Vec<u64> = (0..IDS).collect();
        for batch in numbers.chunks(100) {
            let drafts = batch
                .iter()
                .map(|&number| Draft::new(&Job { number }).id(format!("job-{number}")));
            for answer in client.publish_all(&queue, drafts).await {
                answer.unwrap();
            }
        }
    };
    let publishing: Vec<_> = clients
        .iter()
        .map(|client| tokio::spawn(publish(client.clone(), queue.clone())))
        .collect();
    for published in publishing {
        published.await.unwrap();
    }
    until(
        "everything is settled",
        Duration::from_secs(90),
        async || {
            let stats = clients[0].stats(&queue).await.ok()?;
            let left = stats.ready + stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0);
            let done = effects.all().values().filter(|e| e.done > 0).count() as u64;
            (left == 0 && done == IDS).then_some(())
        },
    )
    .await;
    // After completion too: the last copies may still be on their way round.
    publish(clients[0].clone(), queue.clone()).await;
    for worker in workers {
        worker.stop().await;
    }
    for (number, effect) in effects.all() {
        assert_eq!((effect.most, effect.done), (1, 1), "{number}: {effect:?}");
    }
    assert_eq!(clients[0].stats(&queue).await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_three_copies_of_an_id_have_one_effect() {
    one_effect(&format!("memory:{}", unique("dedup")), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_three_copies_of_an_id_have_one_effect() {
    one_effect(&brokers::redis_url().unwrap(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_with_a_shared_store_three_copies_of_an_id_have_one_effect() {
    let store = brokers::redis_url().unwrap();
    one_effect(&brokers::amqp_url().unwrap(), Some(&store)).await;
}
