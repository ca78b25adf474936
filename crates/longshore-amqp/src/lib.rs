//! Longshore's transport over RabbitMQ.

mod address;
mod error;
mod guard;
mod link;
mod runtime;
mod session;
mod tls;
