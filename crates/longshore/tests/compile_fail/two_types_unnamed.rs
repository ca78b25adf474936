//! A struct that handles two types, registered without saying for which.
//!
//! says: type annotations needed
//! says: name it where a struct handles several: `.handle::<OrderPlaced, _>(billing)`

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

#[derive(Serialize, Deserialize)]
struct Refund;

impl Message for Refund {
    const TYPE: &'static str = "refund";
}

struct Billing;

impl Handler<Order> for Billing {
    async fn handle(&self, _: Order, _: Context) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Handler<Refund> for Billing {
    async fn handle(&self, _: Refund, _: Context) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() {
    let _ = Router::new().handle(Billing);
}
