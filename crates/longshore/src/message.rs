//! A Rust type that travels.

use serde::{Serialize, de::DeserializeOwned};

/// A Rust type with a stable wire name.
///
/// The name, not the Rust path, is what publishers and handlers agree on; choose it once and keep
/// it when the type moves.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderPlaced {
///     id: u64,
/// }
///
/// impl longshore::Message for OrderPlaced {
///     const TYPE: &'static str = "order.placed";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "this type has no wire name",
    note = "give it one: `impl longshore::Message for {Self} {{ const TYPE: &'static str = \"order.placed\"; }}`",
    note = "a closure's first argument needs its type written out: `|order: OrderPlaced, cx| async move {{ … }}`"
)]
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// The wire name, 1 to 128 bytes without control characters.
    const TYPE: &'static str;
}
