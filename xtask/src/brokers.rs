//! `cargo xtask brokers`: the brokers of the tests, to play with.

use std::process::ExitCode;

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
    for (name, url) in [("RabbitMQ", &supply.amqp_url), ("Redis", &supply.redis_url)] {
        println!("{name}: {url}");
        println!("  cargo run --example consumer -- --url {url} --queue orders");
        println!("  cargo run --example producer -- --url {url} --queue orders\n");
    }
    println!("Ctrl-C stops them.");
    interrupt.wished().await;
    println!("stopping");
    drop(supply);
    Ok(ExitCode::SUCCESS)
}
