//! The conformance suite on RabbitMQ: the shared one through a proxy, and a private one to be killed.

use std::process::ExitCode;

use longshore_testing::{
    brokers::{BrokerKind, amqp_url},
    conformance,
};

fn main() -> ExitCode {
    conformance::main(conformance::on_broker(
        BrokerKind::RabbitMq,
        amqp_url(),
        |url, options| Box::pin(async move { longshore_amqp::connect(&url, options).await }),
    ))
}
