//! The adapter's own mechanisms on a real RabbitMQ. What every transport promises is tested by the
//! conformance suite.

mod rig;
mod traffic;
