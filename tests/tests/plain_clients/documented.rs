//! The examples in `docs/wire.md` do what they say.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{
    Client, Context, HandlerError, Message, Queue, Reply, Request, Router, Topic, Worker,
    WorkerHandle,
};
use longshore_testing::brokers;
use longshore_tests::{plain, unique, waiting::until};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const GUIDE: &str = include_str!("../../../docs/wire.md");

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    id: u64,
}

impl Message for OrderPlaced {
    const TYPE: &'static str = "order.placed";
}

#[derive(Serialize, Deserialize)]
struct GetQuote {
    id: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Quote {
    price: u64,
}

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

impl Request for GetQuote {
    type Reply = Quote;
}

/// What stands between the fences of the blocks of this language that hold this text.
fn block(language: &str, with: &str) -> &'static str {
    let mut blocks = GUIDE.split("\n```").skip(1).step_by(2);
    let found = blocks.find_map(|block| {
        let (named, block) = block.split_once('\n')?;
        (named == language && block.contains(with)).then_some(block)
    });
    found.unwrap_or_else(|| panic!("docs/wire.md has no example with {with}"))
}

/// The names the examples use, and those of one run.
struct Names {
    orders: String,
    invoices: String,
    quotes: String,
    placed: String,
    mine: String,
}

impl Names {
    fn new() -> Self {
        Self {
            orders: unique("o"),
            invoices: unique("i"),
            quotes: unique("q"),
            placed: unique("p"),
            mine: unique("m"),
        }
    }

    fn applied(&self, text: &str) -> String {
        text.replace("ls:reply:mine", &format!("ls:reply:{}", self.mine))
            .replace("\"orders", &format!("\"{}", self.orders))
            .replace("{orders", &format!("{{{}", self.orders))
            .replace("\"invoices", &format!("\"{}", self.invoices))
            .replace("{invoices", &format!("{{{}", self.invoices))
            .replace("\"quotes\"", &format!("\"{}\"", self.quotes))
            .replace("{quotes", &format!("{{{}", self.quotes))
            .replace("\"placed\"", &format!("\"{}\"", self.placed))
    }

    /// Declares all of them, and notes the ids of what arrives.
    async fn workers(&self, client: &Client) -> (Vec<WorkerHandle>, Arc<Mutex<BTreeSet<String>>>) {
        let ids = Arc::new(Mutex::new(BTreeSet::new()));
        let topic = Topic::new(&self.placed);
        let mut workers = Vec::new();
        for (what, queue) in [
            ("order", Queue::new(&self.orders).lanes(["high", "normal"])),
            ("invoice", Queue::new(&self.invoices).sessions(16)),
            ("placed", Queue::new(&unique("bound")).subscribe_to(&topic)),
        ] {
            let ids = Arc::clone(&ids);
            let router = Router::new().handle_fn(move |order: OrderPlaced, cx: Context| {
                let place = [cx.envelope().priority.as_deref(), cx.key()];
                let place: Vec<_> = place.into_iter().flatten().collect();
                let seen = format!("{what} {} {}", order.id, place.concat());
                ids.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(seen);
                async move { Ok::<_, HandlerError>(()) }
            });
            workers.push(Worker::new(client, &queue, router).start().await.unwrap());
        }
        (workers, ids)
    }

    async fn desk(&self, client: &Client) -> WorkerHandle {
        let router = Router::new().handle_fn(|_: GetQuote, _: Context| async move {
            Ok::<_, HandlerError>(Reply(Quote { price: 42 }))
        });
        let queue = Queue::new(&self.quotes);
        Worker::new(client, &queue, router).start().await.unwrap()
    }
}

async fn arrive(ids: &Mutex<BTreeSet<String>>, expected: &[&str]) {
    until("all have arrived", Duration::from_secs(30), async || {
        let ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
        (ids.len() >= expected.len()).then_some(())
    })
    .await;
    let ids = ids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(ids, expected.iter().map(|&id| id.to_owned()).collect());
}

/// Runs the example with this text behind the one that connects, and what follows it.
async fn pika(url: &str, names: &Names, with: &str, then: &str) -> String {
    let connect = block("python", "import pika").replace("amqp://localhost", url);
    let (connect, publish) = connect.split_at(connect.find("channel.basic_publish").unwrap());
    let example = match publish.contains(with) {
        true => publish,
        false => block("python", with),
    };
    let program = format!("{connect}\n{example}\n{then}\nconnection.close()\n");
    plain::python(&names.applied(&program)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_with_pika_do_what_they_say() {
    let url = brokers::amqp_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let names = Names::new();
    let (workers, ids) = names.workers(&client).await;
    pika(&url, &names, "\"orders\"", "").await;
    pika(&url, &names, "def partition", "").await;
    arrive(
        &ids,
        &["invoice 9 foobar", "order 7 ", "order 8 high", "placed 10 "],
    )
    .await;
    for worker in workers {
        worker.stop().await;
    }

    let desk = names.desk(&client).await;
    let printed = pika(
        &url,
        &names,
        "reply_to=",
        "print(properties.correlation_id, body.decode())",
    )
    .await;
    desk.stop().await;
    assert_eq!(printed.trim(), "c1 {\"price\":42}");

    let quotes = Queue::new(&names.quotes);
    let asked = client.request(&quotes, &GetQuote { id: 7 });
    let (_, quote) = tokio::join!(
        pika(&url, &names, "channel.consume", ""),
        asked.into_future()
    );
    assert_eq!(quote.unwrap(), Quote { price: 42 });
}

/// The commands of an example, as a shell would split them.
fn commands(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let words = |line: &str| -> Value {
        let quoted = line.split('\'').enumerate();
        let parts = quoted.flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        parts.collect::<Vec<_>>().into()
    };
    lines.map(words).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_with_redis_cli_do_what_they_say() {
    let url = brokers::redis_url().unwrap();
    let client = longshore::connect(&url).await.unwrap();
    let names = Names::new();
    let (workers, ids) = names.workers(&client).await;
    plain::redis(
        &url,
        &commands(&names.applied(block("", "XADD ls:{orders}"))),
    )
    .await;
    arrive(&ids, &["invoice 9 foobar", "order 7 ", "order 8 high"]).await;
    for worker in workers {
        worker.stop().await;
    }

    let desk = names.desk(&client).await;
    let ask = commands(&names.applied(block("", "reply_to")));
    let answers = plain::redis(&url, &ask).await;
    desk.stop().await;
    let reply = plain::fields(&answers.last().unwrap()[0][1][0]);
    let told = ["correlation_id", "reply", "body"].map(|name| json!(reply.get(name)));
    assert_eq!(told, [json!("c1"), json!("last"), json!("{\"price\":42}")]);
}
