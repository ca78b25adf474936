//! Two processes, cut connections, and every message accounted for.
#![allow(clippy::unwrap_used)]

mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use longshore_core::{Delivery, Settlement, Verdict};
use longshore_testing::proxy::{Direction, Flow, Proxy};
use server::{Consumer, Server, body, options, publish, subscription};

const COUNT: u32 = 2000;
const LOCK: Duration = Duration::from_secs(2);

/// What was started under which number, and what is over.
#[derive(Default)]
struct Journal {
    started: BTreeSet<(String, u32)>,
    completed: BTreeMap<String, u32>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_connections_lose_nothing_and_repeat_no_number() {
    let server = Server::start(&[]).await;
    let direct = server.connect().await;
    let proxy = Arc::new(Proxy::start(server.broker.addr(0)).await.unwrap());
    let journal = Arc::new(Mutex::new(Journal::default()));
    let mut workers = Vec::new();
    let mut transports = Vec::new();
    for _ in 0..2 {
        let mut impatient = options();
        impatient.heartbeat = Duration::from_millis(400);
        impatient.confirm_timeout = Duration::from_secs(3);
        let transport = longshore_redis::connect(&proxy.url(&server.url()), impatient)
            .await
            .unwrap();
        let consumer = Consumer::new(&transport, subscription("q", 32, LOCK)).await;
        workers.push(tokio::spawn(work(consumer, Arc::clone(&journal))));
        transports.push(transport);
    }
    publish(&direct, "q", (0..COUNT).map(|n| n.to_string())).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut round = 0;
    while journal.lock().unwrap().completed.len() < COUNT as usize {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} done",
            journal.lock().unwrap().completed.len()
        );
        round += 1;
        match round {
            1..12 if round % 3 == 0 => {
                proxy.set(Direction::ToClient, Flow::Discard);
                tokio::time::sleep(Duration::from_millis(150)).await;
                proxy.pass().await.unwrap();
            }
            1..12 => drop(proxy.reset_all().await),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for worker in workers {
        assert!(!worker.is_finished(), "a worker panicked");
        worker.abort();
    }
    let repeated: Vec<_> = {
        let journal = journal.lock().unwrap();
        journal
            .completed
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(id, _)| id.clone())
            .collect()
    };
    assert_eq!(
        repeated,
        Vec::<String>::new(),
        "completed for certain more than once"
    );
    server::until("the queue is empty", || {
        server.query::<u64>("XLEN ls:{q}:stream") == 0
    })
    .await;
    assert!(server.pending("q").is_empty());
}

async fn work(mut consumer: Consumer, journal: Arc<Mutex<Journal>>) {
    loop {
        let mut batch = consumer.receive_within(1, Duration::from_secs(60)).await;
        batch.extend(consumer.receive_within(7, Duration::ZERO).await);
        let mut running: Vec<Delivery> = Vec::new();
        for delivery in batch {
            let may = !delivery.suspect
                || consumer
                    .settler
                    .start(&[(delivery.receipt, delivery.attempt)])
                    .await[0]
                    .is_ok();
            if may {
                let new = journal
                    .lock()
                    .unwrap()
                    .started
                    .insert((body(&delivery), delivery.attempt));
                assert!(
                    new,
                    "number {} of {} was used twice",
                    delivery.attempt,
                    body(&delivery)
                );
                running.push(delivery);
            } else {
                let _ = consumer
                    .settle(
                        delivery,
                        Verdict::Release {
                            after: Duration::ZERO,
                        },
                    )
                    .await;
            }
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        let ids: Vec<_> = running.iter().map(body).collect();
        let batch = running
            .iter()
            .map(|d| Settlement::complete(d.receipt, d.attempt))
            .collect();
        let answers = consumer.settler.settle(batch).await;
        for (id, answer) in ids.into_iter().zip(answers) {
            if answer.is_ok() {
                *journal.lock().unwrap().completed.entry(id).or_default() += 1;
            }
        }
    }
}
