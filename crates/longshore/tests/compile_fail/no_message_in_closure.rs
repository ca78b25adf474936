//! A closure for a type that has no wire name.
//!
//! says: `Order` is not a message
//! says: give it one: `impl longshore::Message for Order

use longshore::{Context, Router};

struct Order;

fn main() {
    let _ = Router::new().handle_fn(|_: Order, _: Context| async { Ok(()) });
}
