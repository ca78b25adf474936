//! A struct that handles nothing.
//!
//! says: `Billing` does not handle
//! says: or register a closure with `handle_fn`

use longshore::Router;

struct Billing;

fn main() {
    let _ = Router::new().handle(Billing);
}
