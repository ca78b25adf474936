//! A queue with lanes: what is urgent waits for a free handler and for nothing else.
//!
//! ```text
//! $ cargo run --example priorities
//! normal: the job that is running already
//! high: job 1
//! high: job 2
//! normal: job 1
//! normal: job 2
//! low: job 1
//! low: job 2
//! ```
//!
//! On a broker: `cargo run --example priorities --features brokers -- --url amqp://localhost`

use std::time::Duration;

use longshore::{Context, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Job {
    name: String,
}

impl Message for Job {
    const TYPE: &'static str = "job";
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let url = std::env::args().skip_while(|a| a != "--url").nth(1);
    let client = longshore::connect(url.as_deref().unwrap_or("memory:")).await?;
    // The first lane goes first. With `Worker::weights` each would get its share instead.
    let jobs = Queue::new("jobs").lanes(["high", "normal", "low"]);

    let (started, mut starts) = mpsc::channel(8);
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let router = Router::new().handle_fn(move |job: Job, cx: Context| {
        let (started, mut gate) = (started.clone(), gate.clone());
        async move {
            let lane = cx.envelope().priority.as_deref().unwrap_or("normal");
            println!("{lane}: {}", job.name);
            started.send(()).await?;
            gate.wait_for(|go_on| *go_on).await?;
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &jobs, router).concurrency(1);
    let worker = worker.start().await?;

    let name = "the job that is running already".to_owned();
    client.publish(&jobs, &Job { name }).await?;
    starts.recv().await;
    for number in 1..=2 {
        for lane in ["low", "normal", "high"] {
            let name = format!("job {number}");
            client.publish(&jobs, &Job { name }).priority(lane).await?;
        }
    }
    // Everything has arrived and is prefetched, the low ones first; now the handler gets free.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _ = go_on.send(true);
    for _ in 0..6 {
        starts.recv().await;
    }
    worker.stop().await;
    Ok(())
}
