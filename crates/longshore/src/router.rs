//! The map from message type to handler, with layers round it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, ready};
use longshore_core::{Outcome, Reason, printable};
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;

use crate::{
    Answer, Context, Handler, HandlerError, Message, Route,
    route::{self, Answered, Endpoint, Layered},
};

/// The map from message type to handler, with layers round the whole of it.
///
/// A message of a type without a route goes to the fallback, and without one straight to the dead
/// letters with reason `no-handler`.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Refund { order: u64 }
/// # impl longshore::Message for Refund { const TYPE: &'static str = "refund"; }
/// use longshore::{Context, Router};
///
/// let router = Router::new().handle_fn(|refund: Refund, cx: Context| async move {
///     println!("refunding order {}, attempt {}", refund.order, cx.attempt());
///     Ok(())
/// });
/// ```
#[derive(Clone)]
#[must_use = "a router does nothing until it is given to a worker"]
pub struct Router<L = Identity> {
    routes: Routes,
    layers: L,
}

/// All routes, as the innermost service of a [`Router`]'s layers.
#[derive(Clone)]
pub struct Routes(Arc<Table>);

#[derive(Clone, Default)]
struct Table {
    by_type: BTreeMap<&'static str, Entry>,
    fallback: Option<Arc<dyn Endpoint>>,
    /// Whether any route differs from the worker's time limit or blocks.
    special: bool,
}

#[derive(Clone)]
struct Entry {
    service: Arc<dyn Endpoint>,
    timing: Timing,
}

/// How long a start may take, and what happens then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) limit: Option<Duration>,
    pub(crate) blocking: bool,
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self {
            routes: Routes(Arc::default()),
            layers: Identity::new(),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

// What stands beside a bound is for whoever broke it: the compiler shows those lines.
impl<L> Router<L> {
    /// Routes messages of type `M` to this handler. `handle(billing)` where it handles one type,
    /// `handle::<OrderPlaced, _>(billing)` where several.
    ///
    /// # Panics
    /// When there is a route for the type already, or its name is unfit for the wire.
    #[track_caller]
    pub fn handle<M, A>(self, handler: impl Handler<M, A>) -> Self
    where
        M: Message, // name it where a struct handles several: `.handle::<OrderPlaced, _>(billing)`
        A: Answer<M>,
    {
        self.route(Route::new(handler))
    }

    /// Routes messages to this async closure or function; its first argument says of which type.
    ///
    /// # Panics
    /// As [`handle`](Self::handle).
    #[track_caller]
    pub fn handle_fn<M, A, F, Fut>(self, function: F) -> Self
    where
        M: Message, // write its type out: `|order: OrderPlaced, cx| async move { … }`
        A: Answer<M>,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, HandlerError>> + Send + 'static, // `?` turns every error into one
    {
        self.route(Route::function(function))
    }

    /// Routes messages to this function that blocks its thread; see [`Route::blocking`].
    ///
    /// # Panics
    /// As [`handle`](Self::handle).
    #[track_caller]
    pub fn handle_blocking<M, A, F>(self, function: F) -> Self
    where
        M: Message, // write its type out: `|order: OrderPlaced, cx| { … }`
        A: Answer<M>,
        F: Fn(M, Context) -> Result<A, HandlerError> + Send + Sync + 'static,
    {
        self.route(Route::blocking(function))
    }

    /// Adds a route with layers or limits of its own.
    ///
    /// # Panics
    /// As [`handle`](Self::handle).
    #[track_caller]
    pub fn route(mut self, route: Route) -> Self {
        let kind = route.kind;
        assert!(
            (1..=128).contains(&kind.len()) && !kind.chars().any(char::is_control),
            "a message type has 1 to 128 bytes and no control characters; change `Message::TYPE` of \"{}\"",
            printable(kind, 64)
        );
        let table = Arc::make_mut(&mut self.routes.0);
        let timing = Timing {
            limit: route.time_limit,
            blocking: route.blocking,
        };
        table.special |= timing != Timing::default();
        let entry = Entry {
            service: route.service,
            timing,
        };
        let taken = table.by_type.insert(kind, entry).is_some();
        assert!(
            !taken,
            "there is a handler for \"{kind}\" already; give each message type one, or its own `Message::TYPE`"
        );
        self
    }

    /// Handles every message that has no route. Its body is in [`Context::envelope`].
    ///
    /// # Panics
    /// When there is a fallback already.
    #[track_caller]
    pub fn fallback<F, Fut>(mut self, function: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
    {
        let table = Arc::make_mut(&mut self.routes.0);
        assert!(
            table.fallback.is_none(),
            "there is a fallback already; a router has one"
        );
        table.fallback = Some(Arc::new(Fallback(function)));
        self
    }

    /// Wraps the whole of the router, routes added later included, in a layer:
    /// [`middleware::from_fn`](crate::middleware::from_fn) or any tower layer over
    /// `Service<Context, Response = Outcome>`. The layer added last is the outermost.
    ///
    /// See [`Route::layer`] for what does not belong in a layer.
    pub fn layer<N>(self, layer: N) -> Router<Stack<L, N>> {
        Router {
            routes: self.routes,
            layers: Stack::new(self.layers, layer),
        }
    }

    /// Erases the layers, once.
    pub(crate) fn into_dispatch(self) -> Dispatch
    where
        L: Layer<Routes>,
        L::Service: Service<Context, Response = Outcome> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<HandlerError>,
        <L::Service as Service<Context>>::Future: Send,
    {
        Dispatch {
            endpoint: Arc::new(Layered::new(self.layers.layer(self.routes.clone()))),
            routes: self.routes,
        }
    }
}

/// A router without its type: what a worker runs.
#[derive(Clone)]
pub(crate) struct Dispatch {
    endpoint: Arc<dyn Endpoint>,
    routes: Routes,
}

impl Dispatch {
    pub(crate) fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        self.endpoint.call(cx)
    }

    pub(crate) fn timing(&self, kind: &str) -> Timing {
        let table = &self.routes.0;
        if !table.special {
            return Timing::default();
        }
        table
            .by_type
            .get(kind)
            .map(|e| e.timing)
            .unwrap_or_default()
    }

    /// The longest time limit any route asks for.
    pub(crate) fn longest_limit(&self) -> Option<Duration> {
        let entries = self.routes.0.by_type.values();
        entries.filter_map(|entry| entry.timing.limit).max()
    }

    /// Whether any message at all can be handled.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.0.by_type.is_empty() && self.routes.0.fallback.is_none()
    }
}

impl Service<Context> for Routes {
    type Response = Outcome;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Answered>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, cx: Context) -> Self::Future {
        let table = &self.0;
        match (table.by_type.get(cx.message_type()), &table.fallback) {
            (Some(entry), _) => entry.service.call(cx),
            (None, Some(fallback)) => fallback.call(cx),
            (None, None) => {
                let kind = printable(cx.message_type(), 128);
                Box::pin(ready(Ok(Outcome::DeadLetter {
                    reason: Reason::NoHandler,
                    detail: format!("no handler is registered for the type \"{kind}\""),
                })))
            }
        }
    }
}

struct Fallback<F>(F);

impl<F, Fut> Endpoint for Fallback<F>
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answered> + Send + 'static,
{
    fn call(&self, cx: Context) -> BoxFuture<'static, Answered> {
        let future = route::once(&cx).map(|()| (self.0)(cx));
        Box::pin(async move { future?.await })
    }
}
