//! Partitions, and who owns them.

mod handing_over;
mod order;
mod ownership;
mod starts;
mod strangers;
mod topology;
mod worker;
