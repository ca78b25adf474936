//! A service as a careful operator would run it, with everything it logs on standard error.

use std::{path::Path, sync::Arc, time::Duration};

use longshore::{Backoff, Connect, Context, HandlerError, Queue, Router, Worker};
use longshore_tests::{job::Job, journal::Journal};
use tracing_subscriber::EnvFilter;

/// `logging_service URL QUEUE JOURNAL FILTER`
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, queue, journal, filter] = &arguments[..] else {
        return Err("usage: logging_service URL QUEUE JOURNAL FILTER".into());
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let journal = Arc::new(Journal::open(Path::new(journal))?);
    let client = Connect::new(url).name("logging-service").open().await?;
    let queue = Queue::new(queue);
    let router = Router::new().handle_fn(move |job: Job, cx: Context| {
        let journal = Arc::clone(&journal);
        async move { Ok::<_, HandlerError>(journal.note("done", job.number, cx.attempt())?) }
    });
    let worker = Worker::new(&client, &queue, router)
        .lock(Duration::from_secs(2))
        .backoff(Backoff::new(
            Duration::from_millis(100),
            Duration::from_secs(1),
        ))
        .stop_deadline(Duration::from_secs(5));
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    worker.run_until(terminated.recv()).await?;
    client.close().await;
    Ok(())
}
