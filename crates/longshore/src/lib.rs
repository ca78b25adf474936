//! Azure-Service-Bus-grade messaging for Rust services on the broker they already run: RabbitMQ,
//! Redis Streams, or nothing at all (in memory).
//!
//! A service implements [`Handler`] for each message type and gets, alike on every transport: typed
//! routing, peek-lock settlement, retries with backoff, poison isolation, dead letters with
//! redrive, priorities, sessions ordered by key, dedup windows, delayed messages, fan-out,
//! request/reply and load levelling.
//!
//! ```
//! use longshore::{Context, Handler, HandlerError, Message, Queue, Router, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct OrderPlaced {
//!     id: u64,
//! }
//!
//! impl Message for OrderPlaced {
//!     const TYPE: &'static str = "order.placed";
//! }
//!
//! struct Billing;
//!
//! impl Handler<OrderPlaced> for Billing {
//!     async fn handle(&self, order: OrderPlaced, _: Context) -> Result<(), HandlerError> {
//!         println!("billing order {}", order.id);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), longshore::Error> {
//! let client = longshore::connect("memory:").await?; // or amqp://…, redis://…
//! let orders = Queue::new("orders");
//! client.publish(&orders, &OrderPlaced { id: 7 }).await?;
//!
//! let router = Router::new().handle(Billing);
//! let worker = Worker::new(&client, &orders, router).start().await?;
//! # while client.stats(&orders).await?.ready + client.stats(&orders).await?.in_flight.unwrap_or(0) > 0 {
//! #     tokio::task::yield_now().await;
//! # }
//! worker.stop().await;
//! # Ok(()) }
//! ```

mod answer;
mod backoff;
mod client;
mod codec;
mod connect;
mod context;
mod dead_letters;
mod draft;
mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod handler_error;
mod message;
pub mod middleware;
mod outbox;
mod publish;
mod queue;
mod replies;
mod request;
mod route;
mod router;
mod session;
mod store;
pub mod telemetry;
#[cfg(feature = "opentelemetry")]
mod trace_context;
mod worker;

pub use backoff::Backoff;
pub use client::Client;
pub use connect::{Connect, connect};
pub use context::Context;
pub use dead_letters::{DeadLetters, Progress};
pub use draft::Draft;
pub use fault::Fault;
pub use handler::{Answer, Handler};
pub use handler_error::HandlerError;
pub use longshore_core::{
    Capabilities, Clock, ConnectOptions, DeadLetter, Declare, Envelope, Error, ErrorKind, Ids,
    Limits, Name, Outcome, Published, RandomIds, Reason, ReplyAddress, Result, SeededIds, Stats,
    Store, SystemClock, Text, Transport, defaults,
};
pub use message::Message;
pub use publish::Publish;
pub use queue::{Queue, Target, Topic};
pub use replies::Replies;
pub use request::{Ask, Reply, Request, RequestError};
pub use route::{Route, RouteService};
pub use router::{Router, Routes};
pub use session::Session;
pub use worker::{Figures, Health, OwnedPartition, Worker, WorkerHandle};
