//! Handles orders from a queue on any broker, until Ctrl-C or until `--count` were handled.
//!
//! ```text
//! $ cargo run --example consumer --features brokers -- --url amqp://localhost --queue orders --count 3
//! order 1, attempt 1
//! order 2, attempt 1
//! order 3, attempt 1
//! handled 3 orders from orders
//! ```

use longshore::{Context, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    id: u64,
}

impl Message for OrderPlaced {
    const TYPE: &'static str = "order.placed";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = argument("--url").unwrap_or_else(|| "memory:".to_owned());
    let queue = argument("--queue").unwrap_or_else(|| "orders".to_owned());
    let count: u64 = match argument("--count") {
        Some(count) => count.parse()?,
        None => u64::MAX,
    };

    let client = longshore::connect(&url).await?;
    let orders = Queue::new(&queue);
    let (done, mut handled) = mpsc::channel(1024);
    let router = Router::new().handle_fn(move |order: OrderPlaced, cx: Context| {
        let done = done.clone();
        async move {
            println!("order {}, attempt {}", order.id, cx.attempt());
            done.send(()).await.map_err(HandlerError::permanent)
        }
    });
    let worker = Worker::new(&client, &orders, router)
        .concurrency(1)
        .prefetch(16)
        .start()
        .await?;

    let mut seen = 0;
    while seen < count {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            _ = handled.recv() => seen += 1,
        }
    }
    worker.stop().await;
    println!("handled {seen} orders from {queue}");
    client.close().await;
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}
