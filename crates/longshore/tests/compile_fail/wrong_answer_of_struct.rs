//! A struct that answers with what no handler can answer.
//!
//! says: a handler of `Order` cannot return `u32`

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

struct Billing;

impl Handler<Order, u32> for Billing {
    async fn handle(&self, _: Order, _: Context) -> Result<u32, HandlerError> {
        Ok(7)
    }
}

fn main() {}
