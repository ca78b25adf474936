//! The adapter's own mechanisms on a real RabbitMQ. What every transport promises is tested by the
//! conformance suite.

mod connecting;
mod dead_letters;
mod delays;
mod hostile;
mod lanes;
mod outages;
mod permissions;
mod plain;
mod quarantine;
mod raw;
mod replies;
mod rig;
mod sessions;
mod stopping;
mod topology;
mod traffic;
