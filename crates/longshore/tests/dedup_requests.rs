//! A request inside its dedup window is answered again, and handled once.

#![allow(clippy::unwrap_used, missing_docs)]

mod port;
mod queue_under_test;
mod two_step;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore::{
    Context, HandlerError, Message, Published, Reply, ReplyAddress, Request, Router, Transport,
};
use longshore_core::{Destination, Envelope, Name, Outgoing, Part, Source};
use port::{Port, WINDOW, secs};
use queue_under_test::until;
use serde::{Deserialize, Serialize};
use two_step::Faults;

#[derive(Debug, Serialize, Deserialize)]
struct GetTotal {
    order: u64,
}

impl Message for GetTotal {
    const TYPE: &'static str = "total.get";
}

impl Request for GetTotal {
    type Reply = u64;
}

/// Who asks in the raw: an inbox, and what came into it.
struct Asker {
    transport: Arc<dyn Transport>,
    address: ReplyAddress,
    inbox: Box<dyn Source>,
}

impl Asker {
    async fn new(port: &Port) -> Self {
        let transport = port.broker.open();
        let (address, inbox) = transport.inbox().await.unwrap();
        Self {
            transport,
            address,
            inbox,
        }
    }

    async fn ask(&self, id: &'static str) {
        assert_eq!(self.publish(id, None).await, Published::Accepted);
    }

    async fn publish(&self, id: &'static str, dedup_window: Option<Duration>) -> Published {
        let mut envelope = Envelope::new(GetTotal::TYPE, r#"{"order":21}"#);
        envelope.id = id.into();
        envelope.reply_to = Some(self.address.clone());
        let outgoing = Outgoing {
            to: Destination::Queue(Name::new("orders").unwrap(), Part::Lane(0)),
            envelope,
            delay: Duration::ZERO,
            dedup_window,
        };
        let answer = self.transport.publish(vec![outgoing]).await.pop();
        answer.unwrap().unwrap()
    }

    /// Body and correlation id of the next reply.
    async fn reply(&mut self) -> (String, String) {
        let mut batch = Vec::new();
        let receiving = poll_fn(|cx| self.inbox.poll_receive(cx, 1, &mut batch));
        let arrived = tokio::time::timeout(secs(60), receiving).await;
        arrived.expect("a reply").unwrap();
        let envelope = batch.remove(0).envelope;
        let body = String::from_utf8(envelope.body.to_vec()).unwrap();
        (body, envelope.correlation_id.unwrap().to_string())
    }
}

/// Answers twice the number of the order; how often is counted.
fn desk(starts: &Arc<AtomicUsize>) -> Router {
    let starts = Arc::clone(starts);
    Router::new().handle_fn(move |ask: GetTotal, _: Context| {
        starts.fetch_add(1, Ordering::SeqCst);
        std::future::ready(match ask.order {
            21 => Ok(Reply(42)),
            _ => Err(HandlerError::from("no such order")),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_back_is_answered_again_and_not_handled_again() {
    let port = Port::new();
    let (a, b) = (port.process("a"), port.process("b"));
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.settle_silent, true);
    let first = port.worker(&a, desk(&starts)).await;
    asker.ask("r").await;
    let answer = ("42".to_owned(), "r".to_owned());
    assert_eq!(asker.reply().await, answer);
    // It dies between the reply and the completion of the request.
    let done = |call: &&String| call.starts_with("write Done");
    until("it is marked", || {
        a.faults.calls().iter().filter(done).count() == 2
    })
    .await;
    let calls = a.faults.calls();
    let kept = calls
        .iter()
        .filter(done)
        .all(|call| call.contains("reply: Some"));
    assert!(kept, "completion keeps the answer: {calls:?}");
    a.dies().await;
    let second = port.worker(&b, desk(&starts)).await;
    assert_eq!(asker.reply().await, answer);
    // And a requester that asks again under the same id.
    asker.ask("r").await;
    assert_eq!(asker.reply().await, answer);
    port.quiet().await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    drop(first);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_noted_before_it_is_sent() {
    let port = Port::new();
    let a = port.process("a");
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.write_down, true);
    let worker = port.worker(&a, desk(&starts)).await;
    asker.ask("r").await;
    until("it has run", || starts.load(Ordering::SeqCst) == 1).await;
    let early = tokio::time::timeout(secs(5), asker.reply()).await;
    assert!(early.is_err(), "not before it is noted: {early:?}");
    Faults::set(&a.faults.write_down, false);
    assert_eq!(asker.reply().await.0, "42");
    port.quiet().await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_held_since_its_publish_is_answered_again_when_it_comes_back() {
    let port = Port::new();
    let (a, b) = (port.atomic_process("a"), port.atomic_process("b"));
    a.client.declare(&port.queue).await.unwrap();
    let mut asker = Asker::new(&port).await;
    let starts = Arc::default();
    Faults::set(&a.faults.settle_silent, true);
    let first = port.worker(&a, desk(&starts)).await;
    let published = asker.publish("r", Some(WINDOW)).await;
    assert_eq!(published, Published::Accepted);
    assert_eq!(asker.reply().await.0, "42");
    assert_eq!(
        a.faults.takes.load(Ordering::SeqCst),
        0,
        "its publish took the id"
    );
    a.dies().await;
    let second = port.worker(&b, desk(&starts)).await;
    assert_eq!(asker.reply().await.0, "42");
    port.quiet().await;
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    let again = asker.publish("r", Some(WINDOW)).await;
    assert_eq!(again, Published::Duplicate);
    drop(first);
    second.stop().await;
}
