//! Longshore's transport over RabbitMQ 3.10 and later.
//!
//! [`connect`] gives a [`Transport`](longshore_core::Transport) that keeps its contract with quorum
//! queues, publisher confirms and no plugin.
//! Services use it through the `longshore` crate.
//!
//! # A known gap
//! While RabbitMQ cancels a consumer, at a stop or a change of the prefetch, it may hand a message
//! that is published just then to that consumer and never deliver it. Nobody here learns of it. It
//! comes back when the channel closes, counted as one return, so it costs that message an attempt.
//! After a stop the channel is therefore closed as soon as all it delivered is settled, not only at
//! the end of the stop, and what this client itself gives back or tries again waits until nothing
//! is half cancelled.

mod address;
mod admin;
mod book;
mod cell;
mod convert;
mod copy;
mod dead_letters;
mod delay;
mod direct;
mod error;
mod estate;
mod fan_out;
mod feed;
mod fence;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod guard;
mod headers;
mod held;
mod inbox;
mod intake;
mod intent;
mod ledger;
mod link;
mod lock;
mod lookout;
mod marker;
mod membership;
mod names;
mod objects;
mod partition;
mod parts;
mod plan;
mod prepared;
mod publisher;
mod pulse;
mod reply_rule;
mod route;
mod runtime;
mod session;
mod settler;
mod source;
mod suspects;
mod tenure;
mod tls;
mod topology;
mod transport;

pub use transport::connect;
