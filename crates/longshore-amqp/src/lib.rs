//! Longshore's transport over RabbitMQ 3.10 and later.
//!
//! [`connect`] gives a [`Transport`](longshore_core::Transport) that keeps its contract with quorum
//! queues, publisher confirms and no plugin.
//! Services use it through the `longshore` crate.

mod address;
mod admin;
mod convert;
mod copy;
mod dead_letters;
mod delay;
mod error;
mod feed;
mod guard;
mod headers;
mod held;
mod intake;
mod link;
mod names;
mod objects;
mod plan;
mod prepared;
mod publisher;
mod pulse;
mod runtime;
mod session;
mod settler;
mod source;
mod suspects;
mod tls;
mod topology;
mod transport;

pub use transport::connect;
