//! A layer whose service cannot be cloned for every start.
//!
//! says: a service is cloned for every start: derive `Clone` for yours

use longshore::{Context, Handler, HandlerError, Message, Router};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order;

impl Message for Order {
    const TYPE: &'static str = "order";
}

use longshore::{Client, Queue, Worker};

struct Once<S>(S);

impl<S: tower_service::Service<Context>> tower_service::Service<Context> for Once<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, cx: Context) -> S::Future {
        self.0.call(cx)
    }
}

fn start(client: &Client, queue: &Queue) {
    let router = Router::new()
        .handle_fn(|_: Order, _: Context| async { Ok(()) })
        .layer(tower_layer::layer_fn(Once));
    let _ = Worker::new(client, queue, router);
}

fn main() {}
