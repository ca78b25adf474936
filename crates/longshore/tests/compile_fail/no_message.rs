//! A handler for a type that has no wire name.
//!
//! says: `Order` is not a message
//! says: give it one: `impl longshore::Message for Order

use longshore::{Context, Handler, HandlerError};

struct Order;

struct Billing;

impl Handler<Order> for Billing {
    async fn handle(&self, _: Order, _: Context) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn main() {}
