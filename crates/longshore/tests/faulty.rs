//! What the simulation has found, each as the shortest way to it.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::time::Duration;

use longshore::{Backoff, Context, Queue, Router, WorkerHandle};
use longshore_testing::faulty::{Faults, Faulty};
use queue_under_test::{Log, Order, QueueUnderTest};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A queue on a connection that suffers on request.
struct Suffering {
    under_test: QueueUnderTest,
    faults: Faults,
    /// Id and attempt of every start.
    started: Log<(u64, u32)>,
}

impl Suffering {
    fn new(queue: Queue) -> Self {
        let mut faults = None;
        let mut under_test = QueueUnderTest::on(|inner| {
            let (transport, those) = Faulty::over(inner, 1).open();
            faults = Some(those);
            transport
        });
        under_test.queue = queue;
        Self {
            under_test,
            faults: faults.unwrap(),
            started: Log::new(),
        }
    }

    /// The handler of an order takes as many seconds as its id has tens.
    async fn worker(&self) -> WorkerHandle {
        let started = self.started.clone();
        let router = Router::new().handle_fn(move |order: Order, cx: Context| {
            started.add((order.id, cx.attempt()));
            async move {
                tokio::time::sleep(secs(order.id / 10)).await;
                Ok(())
            }
        });
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        let worker = self.under_test.worker(router).backoff(backoff);
        worker.start().await.unwrap()
    }

    async fn publish(&self, id: u64, key: &'static str) {
        let Suffering { under_test, .. } = self;
        let publish = under_test.client.publish(&under_test.queue, &Order { id });
        publish.key(key).await.unwrap();
    }
}

/// Seed 141: a settlement that came too late had shown the loss, and the partition was granted anew.
#[tokio::test(start_paused = true)]
async fn late_news_of_a_loss_do_not_end_the_ownership_that_came_after_it() {
    let sessions = Suffering::new(Queue::new("orders").sessions(1));
    let worker = sessions.worker().await;
    sessions.publish(10, "a").await;
    sessions.started.reaches(1).await;
    assert!(sessions.faults.lose_ownership(secs(8)));
    sessions.under_test.settled().await;
    assert!(worker.figures().partitions[0].token > 1);
    sessions.publish(110, "a").await;
    sessions.under_test.settled().await;
    assert_eq!(sessions.started.all(), [(10, 1), (10, 2), (110, 1)]);
    worker.stop().await;
}
