//! What a service writes: one handler for each message type.

use std::sync::Arc;

use longshore_core::Outcome;

use crate::{Context, HandlerError, Message, Reply, Request, codec};

/// Handles one message type.
///
/// `Ok` completes the message, an error retries it with backoff, [`HandlerError::permanent`] sets
/// it aside at once. The same message can come again (its process may die before the broker hears
/// of the success), so effects should be idempotent: [`Context::idempotency_key`] is the same for
/// every try. The future is dropped when the time limit passes, so what it holds across an
/// `.await` must be safe to drop there.
///
/// A struct that handles several types implements this once for each and is registered with the
/// type named: `.handle::<OrderPlaced, _>(billing)`.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { id: u64 }
/// # impl longshore::Message for OrderPlaced { const TYPE: &'static str = "order.placed"; }
/// use longshore::{Context, Handler, HandlerError};
///
/// struct Billing;
///
/// impl Handler<OrderPlaced> for Billing {
///     async fn handle(&self, order: OrderPlaced, cx: Context) -> Result<(), HandlerError> {
///         println!("attempt {} for order {}", cx.attempt(), order.id);
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle `{M}`",
    label = "no `Handler<{M}>` for this type",
    note = "implement `longshore::Handler<{M}>` for it, or register a closure with `handle_fn`",
    note = "a struct that handles several types is registered with the type named: `.handle::<OrderPlaced, _>(billing)`"
)]
pub trait Handler<M: Message, A: Answer<M> = ()>: Send + Sync + 'static {
    /// Handles one message.
    fn handle(
        &self,
        message: M,
        cx: Context,
    ) -> impl Future<Output = Result<A, HandlerError>> + Send;
}

impl<M: Message, A: Answer<M>, H: Handler<M, A>> Handler<M, A> for Arc<H> {
    async fn handle(&self, message: M, cx: Context) -> Result<A, HandlerError> {
        H::handle(self, message, cx).await
    }
}

/// What a handler of `M` may return: `()`, an [`Outcome`] to choose for itself, or where `M` is a
/// [`Request`] a [`Reply`] to it.
#[diagnostic::on_unimplemented(
    message = "a handler of `{M}` cannot return `{Self}`",
    label = "not an answer to `{M}`",
    note = "a handler returns `Result<(), HandlerError>` or `Result<Outcome, HandlerError>`",
    note = "where `{M}` is a `Request`, also `Result<Reply<…>, HandlerError>` of what its `Request::Reply` says"
)]
pub trait Answer<M>: sealed::Sealed + Send + 'static {
    /// Whether it needs the context.
    #[doc(hidden)]
    const REPLIES: bool = false;
    #[doc(hidden)]
    fn into_outcome(self, cx: Option<&Context>) -> Result<Outcome, HandlerError>;
}

impl<M> Answer<M> for () {
    fn into_outcome(self, _: Option<&Context>) -> Result<Outcome, HandlerError> {
        Ok(Outcome::Complete)
    }
}

impl<M> Answer<M> for Outcome {
    fn into_outcome(self, _: Option<&Context>) -> Result<Outcome, HandlerError> {
        Ok(self)
    }
}

impl<M: Request> Answer<M> for Reply<M::Reply> {
    const REPLIES: bool = true;

    fn into_outcome(self, cx: Option<&Context>) -> Result<Outcome, HandlerError> {
        let body = codec::encode(&self.0, "the reply").map_err(HandlerError::permanent)?;
        if let Some(cx) = cx {
            cx.answer(crate::answer::Answer::Last(body.into()));
        }
        Ok(Outcome::Complete)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for longshore_core::Outcome {}
    impl<T> Sealed for super::Reply<T> {}
}
