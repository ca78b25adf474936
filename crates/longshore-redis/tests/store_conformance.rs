//! The conformance suite of stores on Redis: one opened by itself, each time over connections of its own.

use std::process::ExitCode;

use longshore_core::{ConnectOptions, Error, ErrorKind};
use longshore_testing::{
    brokers::redis_url,
    conformance::{StoreSuite, store_main},
};

fn main() -> ExitCode {
    store_main(StoreSuite::new("redis", || {
        Box::pin(async {
            let url = redis_url().map_err(|error| {
                let text = error.to_string();
                Error::new(ErrorKind::Unavailable, text)
            })?;
            longshore_redis::open_store(&url, ConnectOptions::default()).await
        })
    }))
}
