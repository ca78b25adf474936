//! `cargo xtask brokers`: the brokers of the tests, to play with.

use std::process::ExitCode;

use longshore_testing::brokers::{AMQP_URL_VARIABLE, REDIS_URL_VARIABLE};

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::supply::Supply;

/// Provides the brokers, prints how to use them, and stops them at Ctrl-C.
///
/// # Errors
/// A broker could not be provided.
pub(crate) async fn run() -> Result<ExitCode, Failure> {
    let mut interrupt = Interrupt::listen()?;
    let supply = tokio::select! {
        biased;
        () = interrupt.wished() => return Ok(ExitCode::SUCCESS),
        supply = Supply::provide() => supply?,
    };
    println!();
    print_usage("RabbitMQ", AMQP_URL_VARIABLE, &supply.amqp_url);
    print_usage("Redis", REDIS_URL_VARIABLE, &supply.redis_url);
    println!("Ctrl-C stops them.");
    interrupt.wished().await;
    println!("stopping");
    drop(supply);
    Ok(ExitCode::SUCCESS)
}

/// An address the user gave us may hold a password, so it is named rather than printed.
fn print_usage(name: &str, variable: &str, url: &str) {
    let given = std::env::var(variable).is_ok_and(|given| given == url);
    let url = if given {
        format!("\"${variable}\"")
    } else {
        url.to_owned()
    };
    println!("{name}: {url}");
    println!("  cargo run --example consumer --features brokers -- --url {url} --queue orders");
    println!("  cargo run --example producer --features brokers -- --url {url} --queue orders\n");
}
