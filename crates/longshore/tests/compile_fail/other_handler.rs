//! A struct that handles another type.
//!
//! says: `Billing` does not handle `Refund`
//! says: implement `longshore::Handler<Refund>` for it

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

fn main() {
    let _ = Router::new().handle::<Refund, ()>(Billing);
}
