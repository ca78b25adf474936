//! A publish whose answer is lost on the way is `Unknown`, and what it sent is there.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use longshore::{Client, Connect, Draft, ErrorKind, Queue};
use longshore_testing::{
    brokers,
    proxy::{Direction, Harm, Method, Proxy, Trap},
};
use longshore_tests::{job::Job, unique, waiting::until};

const PATIENCE: Duration = Duration::from_secs(2);

/// A queue and a client behind a proxy that has published one message to it.
struct Publishing {
    proxy: Proxy,
    client: Client,
    queue: Queue,
}

impl Publishing {
    async fn start(broker: &str, window: Duration) -> Self {
        let upstream = broker.rsplit(['/', '@']).next().unwrap();
        let proxy = Proxy::start(upstream).await.unwrap();
        let connect = Connect::new(proxy.url(broker)).confirm_timeout(PATIENCE);
        let client = connect.open().await.unwrap();
        let mut queue = Queue::new(&unique("lost-answers"));
        if !window.is_zero() {
            queue = queue.dedup_window(window);
        }
        client.declare(&queue).await.unwrap();
        let all = Self {
            proxy,
            client,
            queue,
        };
        assert!(all.publish("first").await.is_ok());
        all
    }

    async fn publish(&self, id: &str) -> longshore::Result<()> {
        let draft = Draft::new(&Job { number: 1 }).id(id);
        let mut answers = self.client.publish_all(&self.queue, [draft]).await;
        answers.pop().unwrap().map(drop)
    }

    /// One more publish, of which the trap takes the answer.
    async fn loses_an_answer(&self, trap: Trap) {
        self.proxy.trap(trap);
        let begun = Instant::now();
        let error = self.publish("second").await.unwrap_err();
        let took = begun.elapsed();
        let lost = self.proxy.counters();
        assert_eq!(lost.lost_methods + lost.lost_replies, 1, "{lost:?}");
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        assert!(took < PATIENCE + Duration::from_secs(2), "{took:?}");
        self.proxy.pass().await.unwrap();
    }

    /// Both messages are there, and not one more.
    async fn both_are_there(&self) {
        until("both are there", Duration::from_secs(20), async || {
            let ready = self.client.stats(&self.queue).await.ok()?.ready;
            assert!(ready <= 2, "{ready}");
            (ready == 2).then_some(())
        })
        .await;
    }
}

fn confirm(harm: Harm) -> Trap {
    Trap::method(Direction::ToClient, Method::BASIC_ACK, harm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_confirm_never_comes_is_unknown_and_stored() {
    let publishing = Publishing::start(&brokers::amqp_url().unwrap(), Duration::ZERO).await;
    publishing.loses_an_answer(confirm(Harm::Lose)).await;
    publishing.both_are_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_connection_breaks_before_the_confirm_is_unknown_and_stored() {
    let publishing = Publishing::start(&brokers::amqp_url().unwrap(), Duration::ZERO).await;
    let reset = confirm(Harm::LoseThenReset);
    publishing.loses_an_answer(reset).await;
    publishing.both_are_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_redis_whose_reply_is_lost_is_unknown_and_stored_once() {
    for harm in [
        Harm::LoseThenReset,
        Harm::LoseThenHold(Duration::from_secs(1)),
    ] {
        let publishing = Publishing::start(&brokers::redis_url().unwrap(), Duration::ZERO).await;
        publishing.loses_an_answer(Trap::reply(harm)).await;
        publishing.both_are_there().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_redis_that_is_made_again_after_a_lost_reply_is_stored_once() {
    let window = Duration::from_secs(60);
    let publishing = Publishing::start(&brokers::redis_url().unwrap(), window).await;
    let reset = Trap::reply(Harm::LoseThenReset);
    publishing.loses_an_answer(reset).await;
    until("it is published", Duration::from_secs(20), async || {
        publishing.publish("second").await.ok()
    })
    .await;
    publishing.both_are_there().await;
}
