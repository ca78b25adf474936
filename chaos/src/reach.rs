//! Waits until what a process needs is there.

use std::time::Duration;

use longshore::Client;
use longshore_testing::ledger;
use tokio::time::Instant;

use crate::{Failure, plan::Plan, raw::Raw, service::AGAIN};

/// The ledger was started before anybody needs it, but may not listen yet.
///
/// # Errors
/// It never does.
pub(crate) async fn connected(path: &str) -> Result<ledger::Client, Failure> {
    let begun = Instant::now();
    loop {
        match ledger::Client::connect(path).await {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Connects below the client, as often as it takes.
pub(crate) async fn below(plan: &Plan) -> Raw {
    loop {
        match Raw::connect(plan).await {
            Ok(raw) => return raw,
            Err(error) => eprintln!("cannot connect: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Connects, as often as it takes.
pub(crate) async fn connect(plan: &Plan) -> Client {
    loop {
        let store = plan.store.as_deref();
        match plan.connect("chaos-worker", &plan.url, store).await {
            Ok(client) => return client,
            Err(error) => eprintln!("cannot connect: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
