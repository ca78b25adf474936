//! The conformance suite on Redis: the shared one through a proxy, and a private one to be killed.

use std::process::ExitCode;

use longshore_testing::{
    brokers::{BrokerKind, redis_url},
    conformance,
};

fn main() -> ExitCode {
    conformance::main(conformance::on_broker(
        BrokerKind::Redis,
        redis_url(),
        |url, options| Box::pin(async move { longshore_redis::connect(&url, options).await }),
    ))
}
