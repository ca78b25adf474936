//! One message type and what handles it.

use std::{future::poll_fn, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use longshore_core::{Outcome, Reason, defaults};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Answer, Context, Handler, HandlerError, Message, codec};

/// What a route or router answers, before it is settled.
pub(crate) type Answered = Result<Outcome, HandlerError>;

/// One message type and what handles it, with layers and limits of its own.
///
/// ```
/// # use std::time::Duration;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Report;
/// # impl longshore::Message for Report { const TYPE: &'static str = "report"; }
/// use longshore::{Context, HandlerError, Route, Router};
///
/// let router = Router::new().route(
///     Route::function(|_: Report, _: Context| async { Ok::<_, HandlerError>(()) })
///         .time_limit(Duration::from_secs(3600)),
/// );
/// ```
#[must_use = "a route does nothing until it is given to a router"]
pub struct Route {
    pub(crate) kind: &'static str,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) blocking: bool,
    pub(crate) service: Arc<dyn Endpoint>,
}

/// The erased end of the road: from an envelope to an answer.
pub(crate) trait Endpoint: Send + Sync {
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered>;
}

impl Route {
    /// A route to this handler.
    pub fn new<M: Message, A: Answer<M>>(handler: impl Handler<M, A>) -> Self {
        Self::to::<M>(Typed {
            handler: Arc::new(handler),
            takes: PhantomData::<fn(M) -> A>,
        })
    }

    /// A route to this async function or closure.
    pub fn function<M, A, F, Fut>(function: F) -> Self
    where
        M: Message,
        A: Answer<M>,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        Self::to::<M>(Function {
            function,
            takes: PhantomData::<fn(M) -> A>,
        })
    }

    /// A route to this function that blocks its thread: it runs on tokio's blocking pool.
    ///
    /// It cannot be dropped: when its time limit passes its cancellation fires, and it keeps its
    /// slot and its lock until it returns.
    pub fn blocking<M, A, F>(function: F) -> Self
    where
        M: Message,
        A: Answer<M>,
        F: Fn(M, Context) -> Result<A, HandlerError> + Send + Sync + 'static,
    {
        let mut route = Self::to::<M>(Blocking {
            function: Arc::new(function),
            takes: PhantomData::<fn(M) -> A>,
        });
        route.blocking = true;
        route
    }

    fn to<M: Message>(service: impl Endpoint + 'static) -> Self {
        Self {
            kind: M::TYPE,
            time_limit: None,
            blocking: false,
            service: Arc::new(service),
        }
    }

    /// How long one start may take, instead of the worker's limit.
    ///
    /// # Panics
    /// When zero or above 24 hours.
    #[track_caller]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        assert!(
            !limit.is_zero() && limit <= defaults::LONGEST_TIME_LIMIT,
            "a time limit lies above zero and at or below 24 hours; got {limit:?}"
        );
        self.time_limit = Some(limit);
        self
    }

    /// Wraps this route alone in a layer: [`middleware::from_fn`](crate::middleware::from_fn) or any
    /// tower layer. The layer added last is the outermost.
    ///
    /// A layer that queues, sheds, limits or retries does not belong here: concurrency, rate and
    /// time limit are the worker's, taken before a message starts, and a second call of the
    /// handler for one start is refused.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<RouteService>,
        L::Service: Service<Context, Response = Outcome> + Send + Sync + 'static,
        L::Service: Clone, // a service is cloned for every start: derive `Clone` for yours
        <L::Service as Service<Context>>::Error: Into<HandlerError>,
        <L::Service as Service<Context>>::Future: Send,
    {
        self.service = Arc::new(Layered::new(layer.layer(RouteService(self.service))));
        self
    }
}

/// What a layer on a [`Route`] wraps.
#[derive(Clone)]
pub struct RouteService(Arc<dyn Endpoint>);

impl Service<Context> for RouteService {
    type Response = Outcome;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Answered>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), HandlerError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, cx: Context) -> Self::Future {
        self.0.call(cx)
    }
}

/// Any service of the right shape as an endpoint: cloned for every call and waited for until ready,
/// as tower asks.
pub(crate) struct Layered<S>(Arc<S>);

impl<S> Layered<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Arc::new(service))
    }
}

impl<S> Endpoint for Layered<S>
where
    S: Service<Context, Response = Outcome> + Clone + Send + Sync + 'static,
    S::Error: Into<HandlerError>,
    S::Future: Send,
{
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        // Cloned on the way, not here: what a layer's clone does belongs to the start it is for.
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let mut service = S::clone(&service);
            poll_fn(|task| service.poll_ready(task))
                .await
                .map_err(Into::into)?;
            service.call(cx).await.map_err(Into::into)
        })
    }
}

struct Typed<H, M, A> {
    handler: Arc<H>,
    takes: PhantomData<fn(M) -> A>,
}

impl<M: Message, A: Answer<M>, H: Handler<M, A>> Endpoint for Typed<H, M, A> {
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move {
            match admit::<M>(&cx)? {
                Ok(message) => {
                    let own = own::<M, A>(&cx);
                    let answer = handler.handle(message, cx).await?;
                    answer.into_outcome(own.as_ref())
                }
                Err(set_aside) => Ok(set_aside),
            }
        })
    }
}

struct Function<F, M, A> {
    function: F,
    takes: PhantomData<fn(M) -> A>,
}

impl<M, A, F, Fut> Endpoint for Function<F, M, A>
where
    M: Message,
    A: Answer<M>,
    F: Fn(M, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, HandlerError>> + Send + 'static,
{
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        let own = own::<M, A>(&cx);
        let future = admit::<M>(&cx).map(|admitted| admitted.map(|m| (self.function)(m, cx)));
        Box::pin(async move {
            match future? {
                Ok(handling) => handling.await?.into_outcome(own.as_ref()),
                Err(set_aside) => Ok(set_aside),
            }
        })
    }
}

struct Blocking<F, M, A> {
    function: Arc<F>,
    takes: PhantomData<fn(M) -> A>,
}

impl<M, A, F> Endpoint for Blocking<F, M, A>
where
    M: Message,
    A: Answer<M>,
    F: Fn(M, Context) -> Result<A, HandlerError> + Send + Sync + 'static,
{
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        let function = Arc::clone(&self.function);
        let span = tracing::Span::current();
        Box::pin(async move {
            let run = move || {
                if cx.is_cancelled() {
                    return Err("cancelled before a thread was free for it".into());
                }
                span.in_scope(|| match admit::<M>(&cx)? {
                    Ok(message) => {
                        let own = own::<M, A>(&cx);
                        function(message, cx)?.into_outcome(own.as_ref())
                    }
                    Err(set_aside) => Ok(set_aside),
                })
            };
            match tokio::task::spawn_blocking(run).await {
                Ok(answered) => answered,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err("the runtime is shutting down".into()),
                },
            }
        })
    }
}

/// The context once more, for an answer that leaves something in it.
fn own<M, A: Answer<M>>(cx: &Context) -> Option<Context> {
    A::REPLIES.then(|| cx.clone())
}

/// The message, decoded, if this is the first call for this start.
fn admit<M: Message>(cx: &Context) -> Result<Result<M, Outcome>, HandlerError> {
    once(cx)?;
    Ok(
        codec::decode::<M>(cx.envelope(), M::TYPE).map_err(|detail| Outcome::DeadLetter {
            reason: Reason::Undecodable,
            detail,
        }),
    )
}

/// Refuses every call of a handler for one start but the first.
pub(crate) fn once(cx: &Context) -> Result<(), HandlerError> {
    if cx.first_call() {
        return Ok(());
    }
    Err(
        "a layer called the handler a second time for one delivery; \
         retrying belongs to the worker, where attempts are counted: remove the retry layer"
            .into(),
    )
}
