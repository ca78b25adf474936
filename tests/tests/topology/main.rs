//! What must exist on a broker: made where it is missing, told apart where it differs, left alone
//! where that was asked for.

#![allow(clippy::unwrap_used)]

mod connections;
mod declared;
mod differs;
mod fan_out;
mod partitions;
mod read_only;
