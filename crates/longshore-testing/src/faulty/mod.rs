//! A transport round another one that misbehaves as brokers and networks do, from a seed.
//!
//! It keeps the adapter contract of [`longshore_core`]: whatever happens is something a broker may do
//! to a process, so a service that is right survives all of it. One [`Faulty`] is the connection of one
//! process; open one for each process a test plays. On one thread, with time paused and everything
//! else seeded as well, one seed gives one history.
//!
//! ```
//! # use longshore_core::{ConnectOptions, Transport};
//! # use std::{sync::Arc, time::Duration};
//! use longshore_testing::faulty::{Fault, Faulty, Plan};
//!
//! # fn wrap(inner: Arc<dyn Transport>) -> Arc<dyn Transport> {
//! let (transport, faults) = Faulty::over(inner, 4711).open();
//! faults.set(Plan::calm().with(Fault::ConfirmLost, 50).with(Fault::Disconnect, 5));
//! // … `longshore::Client::new(transport, …)`, and the test; then, to see it recover:
//! faults.heal();
//! # transport
//! # }
//! ```
//!
//! Nothing is injected until a [`Plan`] is set. Faults that belong to a call are drawn for each call
//! (for each message of a batch); those that belong to locks and connections are drawn for each
//! delivery handed out and come a little later. The same can be done at a moment of the test's
//! choice: [`Faults::disconnect`], [`Faults::lose_lock`], [`Faults::lose_ownership`], [`Faults::die`].

mod admin;
mod connection;
mod fault;
mod faults;
mod inbox;
mod line;
mod membership;
mod plan;
mod settler;
mod source;
mod stock;
mod store;
mod transport;

pub use fault::Fault;
pub use faults::Faults;
pub use plan::Plan;
pub use transport::Faulty;
