//! A closure whose first argument has no type.
//!
//! says: write its type out: `|order: OrderPlaced, cx| async move { … }`

use longshore::Router;

fn main() {
    let _ = Router::new().handle_fn(|_, _| async { Ok(()) });
}
