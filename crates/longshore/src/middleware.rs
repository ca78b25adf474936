//! Code that runs round handlers.

use std::{
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use futures_util::future::BoxFuture;
use longshore_core::Outcome;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Context, HandlerError,
    route::{Answered, Endpoint, Layered},
};

/// A layer from an async function that gets the context and what comes next.
///
/// It may look at the context, act before and after, change the answer, or answer without calling
/// `next`. It sees errors and chosen outcomes; panics and time limits are the worker's.
///
/// ```
/// use longshore::{Context, HandlerError, Outcome, Router, middleware::{self, Next}};
///
/// async fn announce(cx: Context, next: Next) -> Result<Outcome, HandlerError> {
///     let kind = cx.message_type().to_owned();
///     let answer = next.run(cx).await;
///     println!("{kind}: {}", if answer.is_ok() { "handled" } else { "failed" });
///     answer
/// }
///
/// let router = Router::new().layer(middleware::from_fn(announce));
/// ```
pub fn from_fn<F, Fut>(function: F) -> FromFn<F>
where
    F: Fn(Context, Next) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    FromFn(function)
}

/// The layer made by [`from_fn`].
#[derive(Debug, Clone, Copy)]
pub struct FromFn<F>(F);

/// The rest of the road: the layers below and the handler.
pub struct Next(Arc<dyn Endpoint>);

impl Next {
    /// Goes on. Calling it twice for one delivery is impossible.
    pub async fn run(self, cx: Context) -> Result<Outcome, HandlerError> {
        self.0.call(cx).await
    }
}

impl<F: Clone, S> Layer<S> for FromFn<F>
where
    S: Service<Context, Response = Outcome> + Clone + Send + Sync + 'static,
    S::Error: Into<HandlerError>,
    S::Future: Send,
{
    type Service = FromFnService<F>;

    fn layer(&self, inner: S) -> Self::Service {
        FromFnService {
            function: self.0.clone(),
            inner: Arc::new(Layered::new(inner)),
        }
    }
}

/// The service made by [`from_fn`].
#[derive(Clone)]
pub struct FromFnService<F> {
    function: F,
    inner: Arc<dyn Endpoint>,
}

impl<F, Fut> Service<Context> for FromFnService<F>
where
    F: Fn(Context, Next) -> Fut,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    type Response = Outcome;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Answered>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, cx: Context) -> Self::Future {
        Box::pin((self.function)(cx, Next(Arc::clone(&self.inner))))
    }
}
