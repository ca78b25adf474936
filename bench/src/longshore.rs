//! Longshore through its public API.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use longshore::{
    Client, Context, Handler, HandlerError, Outcome, Queue, Router, Worker,
    middleware::{self, Next},
};

use crate::{
    contestant::{Contestant, shared_out},
    job::Job,
    tally::Tally,
};

/// Messages of one `publish_all`. Two calls are in flight: together the window of the raw loops.
const BATCH: u32 = 256;

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
        let share = |numbers| publish_share(self.client.clone(), self.queue.clone(), run, numbers);
        match self.publishing {
            Publishing::Tasks => shared_out(count, share).await,
            Publishing::Batches => {
                let half = count / 2;
                let first = tokio::spawn(publish_batches(
                    self.client.clone(),
                    self.queue.clone(),
                    run,
                    0..half,
                ));
                let second = tokio::spawn(publish_batches(
                    self.client.clone(),
                    self.queue.clone(),
                    run,
                    half..count,
                ));
                first.await??;
                second.await?
            }
        }
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
    client: Client,
    queue: Queue,
    run: u32,
    numbers: Range<u32>,
) -> anyhow::Result<()> {
    for first in numbers.clone().step_by(BATCH as usize) {
        let batch = first..numbers.end.min(first + BATCH);
        let jobs: Vec<Job> = batch.map(|number| Job::new(run, number)).collect();
        for answer in client.publish_all(&queue, &jobs).await {
            answer?;
        }
    }
    Ok(())
}

/// One message at a time.
async fn publish_share(
    client: Client,
    queue: Queue,
    run: u32,
    numbers: Range<u32>,
) -> anyhow::Result<()> {
    for number in numbers {
        client.publish(&queue, &Job::new(run, number)).await?;
    }
    Ok(())
}
