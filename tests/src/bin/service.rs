//! The service under test: notes every start and every end of a job, dies on request.

use std::{path::Path, sync::Arc, time::Duration};

use longshore::{Backoff, Connect, Context, HandlerError, Queue, Router, Worker};
use longshore_tests::{job::Job, journal::Journal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let journal = Arc::new(Journal::open(Path::new(&wanted("journal")?))?);
    let poison: Option<u64> = number("poison")?;
    let busy = Duration::from_millis(number("busy-ms")?.unwrap_or(0));

    let client = Connect::new(wanted("url")?).name("service").open().await?;
    let queue = Queue::new(&wanted("queue")?);
    let router = Router::new().handle_fn(move |job: Job, cx: Context| {
        let journal = Arc::clone(&journal);
        async move {
            journal.note("start", job.number, cx.attempt())?;
            if poison == Some(job.number) {
                std::process::abort();
            }
            tokio::time::sleep(busy).await;
            journal.note("done", job.number, cx.attempt())?;
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &queue, router)
        .max_attempts(u32::try_from(number("max-attempts")?.unwrap_or(5))?)
        .prefetch(u16::try_from(number("prefetch")?.unwrap_or(64))?)
        .concurrency(usize::try_from(number("concurrency")?.unwrap_or(32))?)
        .lock(Duration::from_millis(number("lock-ms")?.unwrap_or(30_000)))
        .backoff(Backoff::new(
            Duration::from_millis(100),
            Duration::from_secs(1),
        ))
        .time_limit(Duration::from_millis(number("limit-ms")?.unwrap_or(60_000)))
        .stop_deadline(Duration::from_millis(number("stop-ms")?.unwrap_or(5_000)));

    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    worker.run_until(terminated.recv()).await?;
    client.close().await;
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let name = format!("--{name}");
    let mut arguments = std::env::args().skip_while(|argument| *argument != name);
    arguments.nth(1)
}

fn wanted(name: &str) -> Result<String, String> {
    argument(name).ok_or_else(|| format!("--{name} is missing"))
}

fn number(name: &str) -> Result<Option<u64>, std::num::ParseIntError> {
    argument(name).map(|value| value.parse()).transpose()
}
