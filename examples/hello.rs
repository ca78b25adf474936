//! Typed handlers, a retry and a dead letter, in memory.
//!
//! ```text
//! $ cargo run --example hello
//! order 1: billed (attempt 1)
//! order 2: the bank is busy (attempt 1)
//! order 3: no such customer (attempt 1)
//! order 1: refunded
//! order 2: billed (attempt 2)
//! left: 0 ready, 0 delayed, 1 dead
//! dead letter: order.placed, permanent after 1 attempt: no such customer
//! ```

use std::time::Duration;

use longshore::{Backoff, Context, Handler, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    id: u64,
}

impl Message for OrderPlaced {
    const TYPE: &'static str = "order.placed";
}

#[derive(Serialize, Deserialize)]
struct Refund {
    order: u64,
}

impl Message for Refund {
    const TYPE: &'static str = "refund";
}

struct Billing;

impl Handler<OrderPlaced> for Billing {
    async fn handle(&self, order: OrderPlaced, cx: Context) -> Result<(), HandlerError> {
        let (id, attempt) = (order.id, cx.attempt());
        let bill = match (id, attempt) {
            (2, 1) => Err("the bank is busy".into()),
            (3, _) => Err(HandlerError::permanent("no such customer")),
            _ => Ok(()),
        };
        let told = bill
            .as_ref()
            .map_or_else(ToString::to_string, |()| "billed".into());
        println!("order {id}: {told} (attempt {attempt})");
        bill
    }
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let client = longshore::connect("memory:").await?;
    let orders = Queue::new("orders");
    for id in 1..=3 {
        client.publish(&orders, &OrderPlaced { id }).await?;
    }
    client.publish(&orders, &Refund { order: 1 }).await?;

    let router = Router::new()
        .handle(Billing)
        .handle_fn(|refund: Refund, _| async move {
            println!("order {}: refunded", refund.order);
            Ok(())
        });
    let quick = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let worker = Worker::new(&client, &orders, router)
        .concurrency(1)
        .backoff(quick)
        .start()
        .await?;

    let left = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let stats = client.stats(&orders).await?;
        if stats.ready + stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0) == 0 {
            break stats;
        }
    };
    worker.stop().await;

    let delayed = left.delayed.unwrap_or(0);
    println!(
        "left: {} ready, {delayed} delayed, {} dead",
        left.ready, left.dead
    );
    for letter in client.dead_letters(&orders).list(None, 10).await? {
        let (kind, reason, detail) = (letter.envelope.kind, letter.reason, letter.detail);
        println!(
            "dead letter: {kind}, {reason} after {} attempt: {detail}",
            letter.attempts
        );
    }
    Ok(())
}
