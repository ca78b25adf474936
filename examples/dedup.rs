//! A dedup window: publishing again after an unclear answer has no second effect.
//!
//! ```text
//! $ cargo run --example dedup
//! payment 1: 30 euro
//! published again: Duplicate
//! payment 2: 12 euro
//! ```
//!
//! On a broker: `cargo run --example dedup --features brokers -- --url redis://localhost`. RabbitMQ cannot tell the
//! publisher, so there the second copy is `Accepted` and the worker drops it; its marks live in the
//! store, which `Connect::store` shares between processes.

use std::time::Duration;

use longshore::{Context, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Payment {
    number: u32,
    euro: u32,
}

impl Message for Payment {
    const TYPE: &'static str = "payment";
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let url = std::env::args().skip_while(|a| a != "--url").nth(1);
    let client = longshore::connect(url.as_deref().unwrap_or("memory:")).await?;
    let payments = Queue::new("payments").dedup_window(Duration::from_secs(60));

    let (paid, mut seen) = mpsc::channel(8);
    let router = Router::new().handle_fn(move |payment: Payment, _: Context| {
        let paid = paid.clone();
        async move {
            println!("payment {}: {} euro", payment.number, payment.euro);
            paid.send(()).await?;
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &payments, router).start().await?;

    // Ids of this run, so that it can be repeated inside the window.
    let id = |number: u32| format!("payment-{number}-{}", std::process::id());
    let first = Payment {
        number: 1,
        euro: 30,
    };
    client.publish(&payments, &first).id(id(1)).await?;
    seen.recv().await;
    // As after `ErrorKind::Unknown`: nobody knows whether the first copy arrived.
    let answer = client.publish(&payments, &first).id(id(1)).await?;
    println!("published again: {answer:?}");
    let second = Payment {
        number: 2,
        euro: 12,
    };
    client.publish(&payments, &second).id(id(2)).await?;
    seen.recv().await;
    worker.stop().await;
    Ok(())
}
