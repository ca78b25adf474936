//! Messages of one key in order, one at a time, with a state of their own; other keys go on meanwhile.
//!
//! ```text
//! $ cargo run --example sessions
//! anna: +100 -30 (again) +5 = 75
//! bert: +20 +22 -2 = 40
//! ```
//!
//! On a broker: `cargo run --example sessions --features brokers -- --url redis://localhost`

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore::{Backoff, Context, Handler, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Booking {
    amount: i64,
}

impl Message for Booking {
    const TYPE: &'static str = "booking";
}

struct Accounts {
    lines: Arc<Mutex<BTreeMap<String, String>>>,
    booked: mpsc::Sender<()>,
}

impl Handler<Booking> for Accounts {
    async fn handle(&self, booking: Booking, cx: Context) -> Result<(), HandlerError> {
        let session = cx.session()?;
        if booking.amount == -30 && cx.attempt() == 1 {
            return Err("try this one again; what follows for anna waits".into());
        }
        // The state belongs to the key, and is written if this handler succeeds.
        let balance = session.state::<i64>().await?.unwrap_or(0) + booking.amount;
        session.set_state(&balance)?;

        let again = if cx.attempt() > 1 { " (again)" } else { "" };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(session.key().to_owned()).or_default();
        let so_far = line.split(" = ").next().unwrap_or_default();
        *line = format!("{so_far} {:+}{again} = {balance}", booking.amount);
        drop(lines);
        let _ = self.booked.send(()).await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let url = std::env::args().skip_while(|a| a != "--url").nth(1);
    let client = longshore::connect(url.as_deref().unwrap_or("memory:")).await?;
    let bookings = Queue::new("bookings").sessions(4);
    for (account, amount) in [
        ("anna", 100),
        ("bert", 20),
        ("anna", -30),
        ("anna", 5),
        ("bert", 22),
        ("bert", -2),
    ] {
        let booking = Booking { amount };
        client.publish(&bookings, &booking).key(account).await?;
    }

    let lines = Arc::new(Mutex::new(BTreeMap::new()));
    let (booked, mut done) = mpsc::channel(8);
    let accounts = Accounts {
        lines: Arc::clone(&lines),
        booked,
    };
    let worker = Worker::new(&client, &bookings, Router::new().handle(accounts))
        .backoff(Backoff::new(
            Duration::from_millis(50),
            Duration::from_secs(1),
        ))
        .start()
        .await?;
    for _ in 0..6 {
        done.recv().await;
    }
    for (account, line) in &*lines.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("{account}:{line}");
    }
    worker.stop().await;
    Ok(())
}
