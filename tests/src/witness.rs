//! A handler that remembers everything it saw, and the wait for dead letters.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{
    Backoff, Client, Context, DeadLetter, Envelope, HandlerError, Queue, Result, Router, Worker,
    WorkerHandle,
};

use crate::{job::Job, waiting::until};

/// What the handler of a [`Job`] saw at one start.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Which job.
    pub number: u64,
    /// Which start.
    pub attempt: u32,
    /// The context's idempotency key.
    pub idempotency_key: String,
    /// Everything that travelled.
    pub envelope: Envelope,
}

/// Remembers every start.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Vec<Sight>>>);

impl Witness {
    /// All starts so far, in order.
    pub fn seen(&self) -> Vec<Sight> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for so many starts.
    ///
    /// # Panics
    /// When there are fewer after 20 seconds.
    pub async fn starts(&self, count: usize) -> Vec<Sight> {
        let what = format!("{count} starts");
        until(&what, Duration::from_secs(20), async || {
            Some(self.seen()).filter(|seen| seen.len() >= count)
        })
        .await
    }

    /// A router whose handler answers as told.
    pub fn router<F>(&self, answer: F) -> Router
    where
        F: Fn(&Job, &Context) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let sights = Arc::clone(&self.0);
        Router::new().handle_fn(move |job: Job, cx: Context| {
            let sight = Sight {
                number: job.number,
                attempt: cx.attempt(),
                idempotency_key: cx.idempotency_key().to_owned(),
                envelope: cx.envelope().clone(),
            };
            sights
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sight);
            let answered = answer(&job, &cx);
            async move { answered }
        })
    }

    /// A worker whose handler answers as told, with a short lock and backoff.
    ///
    /// # Errors
    /// What keeps the worker from starting.
    pub async fn worker<F>(&self, client: &Client, queue: &Queue, answer: F) -> Result<WorkerHandle>
    where
        F: Fn(&Job, &Context) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        Worker::new(client, queue, self.router(answer))
            .lock(Duration::from_secs(2))
            .backoff(Backoff::new(
                Duration::from_millis(100),
                Duration::from_secs(1),
            ))
            .start()
            .await
    }
}

/// Waits for so many dead letters.
///
/// # Panics
/// When there are fewer after 30 seconds.
pub async fn dead(client: &Client, queue: &Queue, count: usize) -> Vec<DeadLetter> {
    let letters = client.dead_letters(queue);
    let what = format!("{count} dead letters of {}", queue.name());
    until(&what, Duration::from_secs(30), async || {
        match letters.list(None, count + 10).await {
            Ok(found) => (found.len() >= count).then_some(found),
            Err(error) if error.is_transient() => None,
            Err(error) => panic!("{}: {error}", queue.name()),
        }
    })
    .await
}

/// The one dead letter of a queue.
///
/// # Panics
/// When there is none after 30 seconds, or more than one.
pub async fn only_dead(client: &Client, queue: &Queue) -> DeadLetter {
    let mut found = dead(client, queue, 1).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
