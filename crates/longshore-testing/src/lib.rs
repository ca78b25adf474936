//! Tools for whoever writes a Longshore transport or tests a service that uses one.
//!
//! - [`checker`]: judges a history: which promises were broken.
//! - [`conformance`]: what a transport promises, as named cases to run against it.
//! - [`brokers`]: private RabbitMQ and Redis processes that a test may kill, freeze and restart, and
//!   the addresses of the shared ones that `cargo xtask test` provides (Unix only).
//! - [`faulty`]: a transport round another one that misbehaves as brokers and networks do, from a
//!   seed, to test a service with.
//! - [`history`]: what happened, in a file that survives the death of any process that writes it.
//! - [`ledger`]: the one judge of what took effect, in a process of its own (Unix only).
//! - [`proxy`]: a TCP proxy that breaks connections in the ways networks do.

#[cfg(unix)]
pub mod brokers;
pub mod checker;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "faulty")]
pub mod faulty;
pub mod history;
#[cfg(unix)]
pub mod ledger;
pub mod proxy;
