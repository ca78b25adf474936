//! Longshore through its public API.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use longshore::{
    Client, Context, Handler, HandlerError, Outcome, Queue, Router, Worker,
    middleware::{self, Next},
};

use crate::{contestant::Contestant, job::Job, tally::Tally};

/// Messages of one `publish_all`, and how many calls are in flight: together the window of the raw loops.
const BATCH: u32 = 256;
const BATCHES: u32 = 2;
/// Tasks that publish one message each at a time.
const TASKS: u32 = 512;

/// Typed handler, router with one layer, worker.
pub(crate) struct Longshore {
    name: &'static str,
    client: Client,
    queue: Queue,
    work: Work,
    publishing: Publishing,
}

/// What the worker is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Defaults,
    /// As much at a time as the raw loops have.
    Wide,
}

/// How many messages are published.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Publishing {
    Batches,
    Tasks,
}

impl Longshore {
    /// Connects.
    ///
    /// # Errors
    /// What Longshore says.
    pub(crate) async fn connect(
        name: &'static str,
        url: &str,
        work: Work,
        publishing: Publishing,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            client: longshore::connect(url).await?,
            queue: Queue::new("bench"),
            work,
            publishing,
        })
    }
}

struct Count(Arc<Tally>);

impl Handler<Job> for Count {
    async fn handle(&self, job: Job, _: Context) -> Result<(), HandlerError> {
        self.0.count(&job);
        Ok(())
    }
}

/// The one layer.
async fn pass(cx: Context, next: Next) -> Result<Outcome, HandlerError> {
    next.run(cx).await
}

#[async_trait]
impl Contestant for Longshore {
    fn name(&self) -> &str {
        self.name
    }

    fn is_raw(&self) -> bool {
        false
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        Ok(self.client.declare(&self.queue).await?)
    }

    async fn publish(&self, run: u32, count: u32) -> anyhow::Result<()> {
        let tasks = match self.publishing {
            Publishing::Batches => BATCHES,
            Publishing::Tasks => TASKS,
        };
        let publishing = self.publishing;
        let tasks = (0..tasks).map(|task| {
            let (client, queue) = (self.client.clone(), self.queue.clone());
            tokio::spawn(async move {
                let share = |of: u32| (u64::from(count) * u64::from(of) / u64::from(tasks)) as u32;
                let (from, to) = (share(task), share(task + 1));
                match publishing {
                    Publishing::Batches => publish_batches(&client, &queue, run, from, to).await,
                    Publishing::Tasks => {
                        for number in from..to {
                            client.publish(&queue, &Job::new(run, number)).await?;
                        }
                        Ok(())
                    }
                }
            })
        });
        let ended: Vec<anyhow::Result<()>> = try_join_all(tasks.collect::<Vec<_>>()).await?;
        ended.into_iter().collect()
    }

    async fn publish_one(&self, job: Job) -> anyhow::Result<()> {
        self.client.publish(&self.queue, &job).await?;
        Ok(())
    }

    async fn consume(&self, tally: Arc<Tally>) -> anyhow::Result<()> {
        let router = Router::new()
            .handle(Count(Arc::clone(&tally)))
            .layer(middleware::from_fn(pass));
        let worker = Worker::new(&self.client, &self.queue, router);
        let worker = match self.work {
            Work::Defaults => worker,
            Work::Wide => worker.prefetch(512).concurrency(512),
        };
        let worker = worker.start().await?;
        tally.complete().await;
        worker.stop().await;
        Ok(())
    }

    async fn left(&self) -> anyhow::Result<u64> {
        let stats = self.client.stats(&self.queue).await?;
        let in_flight = stats.in_flight.unwrap_or(0);
        Ok(stats.ready + in_flight + stats.delayed.unwrap_or(0) + stats.dead)
    }
}

async fn publish_batches(
    client: &Client,
    queue: &Queue,
    run: u32,
    from: u32,
    to: u32,
) -> anyhow::Result<()> {
    for first in (from..to).step_by(BATCH as usize) {
        let jobs: Vec<Job> = (first..to.min(first + BATCH))
            .map(|n| Job::new(run, n))
            .collect();
        for answer in client.publish_all(queue, &jobs).await {
            answer?;
        }
    }
    Ok(())
}
