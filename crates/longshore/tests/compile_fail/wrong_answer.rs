//! A closure that answers with what no handler can answer.
//!
//! says: a handler of `Order` cannot return `u32`
//! says: a handler returns `Result<(), HandlerError>` or `Result<Outcome, HandlerError>`

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

fn main() {
    let _ = Router::new().handle_fn(|_: Order, _: Context| async { Ok::<_, HandlerError>(7_u32) });
}
