//! A closure that returns no result.
//!
//! says: expected `Result<_, HandlerError>`, found `()`

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

fn main() {
    let _ = Router::new().handle_fn(|_: Order, _: Context| async {});
}
