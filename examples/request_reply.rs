//! A request and its typed reply, several replies as a stream, and a fault.
//!
//! ```text
//! $ cargo run --example request_reply
//! 3 books: 36 euro
//! looking: 1 of 2 shelves
//! looking: 2 of 2 shelves
//! 2 books: 24 euro
//! 1000 books: only 7 are left
//! ```
//!
//! On a broker: `cargo run --example request_reply --features brokers -- --url amqp://localhost`

use longshore::{
    Context, Handler, HandlerError, Message, Queue, Reply, Request, RequestError, Router, Worker,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct GetQuote {
    books: u32,
    patient: bool,
}

impl Message for GetQuote {
    const TYPE: &'static str = "quote.get";
}

#[derive(Serialize, Deserialize)]
enum Quote {
    Looking { shelves: u32, of: u32 },
    Price { euro: u32 },
}

impl Request for GetQuote {
    type Reply = Quote;
}

#[derive(Serialize, Deserialize)]
struct SoldOut {
    left: u32,
}

impl Message for SoldOut {
    const TYPE: &'static str = "sold-out";
}

struct Shop;

impl Handler<GetQuote, Reply<Quote>> for Shop {
    async fn handle(&self, ask: GetQuote, cx: Context) -> Result<Reply<Quote>, HandlerError> {
        if ask.books > 100 {
            return Err(HandlerError::fault(&SoldOut { left: 7 }));
        }
        if ask.patient {
            for shelves in 1..=2 {
                cx.reply_part(&Quote::Looking { shelves, of: 2 }).await?;
            }
        }
        let euro = ask.books * 12;
        Ok(Reply(Quote::Price { euro }))
    }
}

fn show(books: u32, quote: &Quote) {
    match quote {
        Quote::Looking { shelves, of } => println!("looking: {shelves} of {of} shelves"),
        Quote::Price { euro } => println!("{books} books: {euro} euro"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().skip_while(|a| a != "--url").nth(1);
    let client = longshore::connect(url.as_deref().unwrap_or("memory:")).await?;
    let quotes = Queue::new("quotes");
    let worker = Worker::new(&client, &quotes, Router::new().handle(Shop));
    let worker = worker.start().await?;
    let ask = |books, patient| client.request(&quotes, &GetQuote { books, patient });

    show(3, &ask(3, false).await?);

    let mut replies = ask(2, true).stream().await?;
    while let Some(quote) = replies.next().await {
        show(2, &quote?);
    }

    match ask(1000, false).await {
        Err(RequestError::Fault(fault)) => match fault.get::<SoldOut>() {
            Some(SoldOut { left }) => println!("1000 books: only {left} are left"),
            None => println!("{fault}"),
        },
        other => show(1000, &other?),
    }
    worker.stop().await;
    Ok(())
}
