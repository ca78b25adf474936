//! A closure with another error than a handler's.
//!
//! says: expected `Result<(), HandlerError>`, found `Result<(), Error>`
//! says: `?` turns every error into one

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

fn main() {
    let _ = Router::new()
        .handle_fn(|_: Order, _: Context| async { Err::<(), std::io::Error>(std::io::ErrorKind::Other.into()) });
}
