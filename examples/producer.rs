//! Publishes orders to a queue on any broker.
//!
//! ```text
//! $ cargo run --example producer --features brokers -- --url amqp://localhost --queue orders --count 3
//! published 3 orders to orders
//! ```

use longshore::{Draft, Message, Queue};
use serde::{Deserialize, Serialize};

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
    let count: u64 = argument("--count").as_deref().unwrap_or("10").parse()?;

    let client = longshore::connect(&url).await?;
    let orders = Queue::new(&queue);
    let mut next = 1;
    while next <= count {
        let last = count.min(next + 999);
        let batch = (next..=last).map(|id| Draft::new(&OrderPlaced { id }));
        for answer in client.publish_all(&orders, batch).await {
            answer?;
        }
        next = last + 1;
    }
    println!("published {count} orders to {queue}");
    client.close().await;
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}
