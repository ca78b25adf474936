//! Code that runs round handlers: our own and tower's.

#![allow(clippy::unwrap_used, missing_docs)]

mod queue_under_test;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{
    Backoff, Context, HandlerError, Outcome, Reason, Route, Router,
    middleware::{self, Next},
};
use queue_under_test::{Log, Order, QueueUnderTest, Refund};
use tower::{
    ServiceBuilder,
    retry::{Policy, RetryLayer},
    timeout::TimeoutLayer,
    util::MapResultLayer,
};

type Seen = Log<String>;
type Answer = Result<Outcome, HandlerError>;

/// A layer that notes when it is entered and left.
macro_rules! noting {
    ($seen:expr, $name:literal) => {{
        let seen = $seen.clone();
        middleware::from_fn(move |cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                seen.add(format!("into {} with {}", $name, cx.message_type()));
                let answer = next.run(cx).await;
                let how = if answer.is_ok() { "done" } else { "failed" };
                seen.add(format!("out of {}: {how}", $name));
                answer
            }
        })
    }};
}

fn order_route(seen: &Seen) -> Route {
    let seen = seen.clone();
    Route::function(move |order: Order, _: Context| {
        let seen = seen.clone();
        async move {
            seen.add(format!("order {}", order.id));
            if order.id == 13 {
                return Err("unlucky".into());
            }
            Ok(())
        }
    })
}

/// Publishes these orders and one refund, and handles them with one attempt each.
async fn handle<L>(router: Router<L>, orders: &[u64]) -> QueueUnderTest
where
    L: tower_layer::Layer<longshore::Routes>,
    L::Service: tower_service::Service<Context, Response = Outcome> + Clone + Send + Sync + 'static,
    <L::Service as tower_service::Service<Context>>::Error: Into<HandlerError>,
    <L::Service as tower_service::Service<Context>>::Future: Send,
{
    let under_test = QueueUnderTest::new();
    under_test.publish_orders(orders.iter().copied()).await;
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router)
        .concurrency(1)
        .max_attempts(1)
        .start()
        .await
        .unwrap();
    under_test.settled().await;
    worker.stop().await;
    under_test
}

#[tokio::test(start_paused = true)]
async fn the_layer_added_last_is_the_outermost_and_sees_errors() {
    let seen = Seen::new();
    let router = Router::new()
        .layer(noting!(seen, "inner"))
        .layer(noting!(seen, "outer"))
        .route(order_route(&seen));
    handle(router, &[1, 13]).await;
    let expected = [
        "into outer with order.placed",
        "into inner with order.placed",
        "order 1",
        "out of inner: done",
        "out of outer: done",
        "into outer with order.placed",
        "into inner with order.placed",
        "order 13",
        "out of inner: failed",
        "out of outer: failed",
    ];
    assert_eq!(seen.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn layers_of_a_route_wrap_that_route_alone_and_inside_those_of_the_router() {
    let seen = Seen::new();
    let log = seen.clone();
    let router = Router::new()
        .layer(noting!(seen, "router"))
        .route(
            order_route(&seen)
                .layer(noting!(seen, "near"))
                .layer(noting!(seen, "far")),
        )
        .handle_fn(move |_: Refund, _| {
            let log = log.clone();
            async move {
                log.add("refund".to_owned());
                Ok(())
            }
        });
    let under_test = QueueUnderTest::new();
    under_test.publish(&Order { id: 1 }).await;
    under_test.publish(&Refund { order: 1 }).await;
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.concurrency(1).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    let expected = [
        "into router with order.placed",
        "into far with order.placed",
        "into near with order.placed",
        "order 1",
        "out of near: done",
        "out of far: done",
        "out of router: done",
        "into router with refund",
        "refund",
        "out of router: done",
    ];
    assert_eq!(seen.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_layer_can_answer_without_calling_the_handler() {
    async fn refuse(cx: Context, next: Next) -> Answer {
        if cx.header("tenant") == Some("gone") {
            return Ok(Outcome::DeadLetter {
                reason: Reason::Other("no-such-tenant".into()),
                detail: "the tenant has left".to_owned(),
            });
        }
        next.run(cx).await
    }
    let seen = Seen::new();
    let under_test = QueueUnderTest::new();
    for tenant in ["here", "gone"] {
        let order = Order { id: 1 };
        let publish = under_test.client.publish(&under_test.queue, &order);
        publish.header("tenant", tenant).await.unwrap();
    }
    let router = Router::new()
        .route(order_route(&seen))
        .layer(middleware::from_fn(refuse));
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(seen.all(), ["order 1"]);
    let letter = under_test.letter().await;
    assert_eq!(letter.reason.as_str(), "no-such-tenant");
    assert_eq!(letter.detail, "the tenant has left");
}

#[tokio::test(start_paused = true)]
async fn a_layer_sees_what_has_no_handler_and_what_cannot_be_decoded_as_outcomes() {
    let reasons = Log::new();
    let log = reasons.clone();
    let watch = middleware::from_fn(move |cx: Context, next: Next| {
        let log = log.clone();
        async move {
            let answer = next.run(cx).await;
            if let Ok(Outcome::DeadLetter { reason, .. }) = &answer {
                log.add(reason.clone());
            }
            answer
        }
    });
    let under_test = QueueUnderTest::new();
    under_test.publish_raw("order.placed", "", vec![b'}']).await;
    under_test.publish(&Refund { order: 1 }).await;
    let router = Router::new().layer(watch).route(order_route(&Seen::new()));
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.concurrency(1).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(reasons.all(), [Reason::Undecodable, Reason::NoHandler]);
}

#[tokio::test(start_paused = true)]
async fn a_tower_layer_can_change_the_answer() {
    let seen = Seen::new();
    let forgive =
        MapResultLayer::new(|answer: Answer| answer.or(Ok::<_, HandlerError>(Outcome::Complete)));
    let router = Router::new().route(order_route(&seen)).layer(forgive);
    let under_test = handle(router, &[13]).await;
    assert!(under_test.letters().await.is_empty());
    assert_eq!(seen.all(), ["order 13"]);
}

#[tokio::test(start_paused = true)]
async fn a_tower_stack_with_an_error_of_its_own_fits_router_and_route() {
    async fn slow(_: Order, _: Context) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    }
    // `tower::timeout` wants an inner error it can box; a `HandlerError` is none.
    let boxed = || {
        ServiceBuilder::new()
            .layer(TimeoutLayer::new(Duration::from_secs(1)))
            .map_err(|error: HandlerError| error.to_string())
    };
    for router_wide in [true, false] {
        let under_test = if router_wide {
            handle(Router::new().handle_fn(slow).layer(boxed()), &[1]).await
        } else {
            let route = Route::function(slow).layer(boxed());
            handle(Router::new().route(route), &[1]).await
        };
        let letter = under_test.letter().await;
        assert_eq!(letter.detail, "request timed out");
    }
}

#[derive(Clone)]
struct Thrice(Arc<AtomicUsize>);

impl Policy<Context, Outcome, HandlerError> for Thrice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Context, answer: &mut Answer) -> Option<Self::Future> {
        let again = answer.is_err() && self.0.fetch_add(1, Ordering::Relaxed) < 2;
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, cx: &Context) -> Option<Context> {
        Some(cx.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_retrying_layer_gets_its_second_call_refused_with_the_reason() {
    let (seen, fallen) = (Seen::new(), Seen::new());
    let (calls, log) = (Arc::new(AtomicUsize::new(0)), fallen.clone());
    let router = Router::new()
        .route(order_route(&seen))
        .fallback(move |cx| {
            log.add(cx.message_type().to_owned());
            std::future::ready(Err("no".into()))
        })
        .layer(RetryLayer::new(Thrice(Arc::clone(&calls))));
    let under_test = handle(router.clone(), &[13]).await;
    assert_eq!(seen.all(), ["order 13"], "the handler ran once");
    assert!(
        calls.load(Ordering::Relaxed) >= 2,
        "the layer did call again"
    );
    let letter = under_test.letter().await;
    assert!(
        letter.detail.contains("remove the retry layer"),
        "{letter:?}"
    );

    calls.store(0, Ordering::Relaxed);
    let under_test = QueueUnderTest::new();
    under_test.publish(&Refund { order: 1 }).await;
    let worker = longshore::Worker::new(&under_test.client, &under_test.queue, router);
    let worker = worker.max_attempts(1).start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    assert_eq!(fallen.all(), ["refund"], "nor may the fallback run twice");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_may_call_the_handler_once_again() {
    let seen = Seen::new();
    let under_test = QueueUnderTest::new();
    under_test.publish(&Order { id: 13 }).await;
    let router = Router::new().route(order_route(&seen).layer(noting!(seen, "layer")));
    let quick = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let worker = under_test.worker(router).max_attempts(3).backoff(quick);
    let worker = worker.start().await.unwrap();
    under_test.settled().await;
    worker.stop().await;
    let runs = seen.all().iter().filter(|e| *e == "order 13").count();
    assert_eq!(runs, 3);
    assert_eq!(under_test.letter().await.detail, "unlucky");
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_when_it_is_cloned_costs_its_message_and_nobody_else() {
    /// Panics at the first clone.
    struct Brittle<S>(S, Arc<AtomicUsize>);
    impl<S: Clone> Clone for Brittle<S> {
        fn clone(&self) -> Self {
            assert!(self.1.fetch_add(1, Ordering::Relaxed) > 0, "cloned");
            Self(self.0.clone(), Arc::clone(&self.1))
        }
    }
    impl<S> tower_service::Service<Context> for Brittle<S>
    where
        S: tower_service::Service<Context>,
    {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, cx: Context) -> S::Future {
            self.0.call(cx)
        }
    }
    let (seen, clones) = (Seen::new(), Arc::new(AtomicUsize::new(0)));
    let brittle = tower_layer::layer_fn(move |inner| Brittle(inner, Arc::clone(&clones)));
    let router = Router::new().route(order_route(&seen)).layer(brittle);
    let under_test = handle(router, &[1, 2]).await;
    assert_eq!(seen.all(), ["order 2"]);
    assert_eq!(under_test.letter().await.detail, "panicked: cloned");
}
