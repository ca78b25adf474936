//! Messages of one key in order, one at a time, with a state of their own; other keys go on meanwhile.
//!
//! ```text
//! $ cargo run --example sessions
//! anna: +100 -30 (again) +5 = 75
//! bert: +20 +22 -2 = 40
//! ```
//!
//! On a broker: `cargo run --example sessions --features brokers -- --url redis://localhost`

use std::{collections::BTreeMap, time::Duration};

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

/// Tells of each booking: the account, what was booked, the balance then.
struct Accounts(mpsc::Sender<(String, String, i64)>);

impl Handler<Booking> for Accounts {
    async fn handle(&self, booking: Booking, cx: Context) -> Result<(), HandlerError> {
        let amount = booking.amount;
        if amount == -30 && cx.attempt() == 1 {
            return Err("once more; what follows for anna waits, and bert does not".into());
        }
        // The state belongs to the key, and is written if this handler succeeds.
        let session = cx.session();
        let balance = session.state::<i64>().await?.unwrap_or(0) + amount;
        session.set_state(&balance)?;
        let again = if cx.attempt() > 1 { " (again)" } else { "" };
        let told = (
            session.key().to_owned(),
            format!("{amount:+}{again}"),
            balance,
        );
        Ok(self.0.send(told).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let url = std::env::args().skip_while(|a| a != "--url").nth(1);
    let client = longshore::connect(url.as_deref().unwrap_or("memory:")).await?;
    let bookings = Queue::new("bookings").sessions(4);
    // Accounts of this run: on a broker the state of others stays.
    let run = std::process::id();
    for (account, amount) in [
        ("anna", 100),
        ("bert", 20),
        ("anna", -30),
        ("anna", 5),
        ("bert", 22),
        ("bert", -2),
    ] {
        let account = format!("{account}-{run}");
        client
            .publish(&bookings, &Booking { amount })
            .key(account)
            .await?;
    }

    let (tell, mut told) = mpsc::channel(8);
    let worker = Worker::new(&client, &bookings, Router::new().handle(Accounts(tell)))
        .backoff(Backoff::new(
            Duration::from_millis(50),
            Duration::from_secs(1),
        ))
        .start()
        .await?;
    let mut accounts = BTreeMap::<String, (String, i64)>::new();
    for _ in 0..6 {
        let Some((account, booked, balance)) = told.recv().await else {
            break;
        };
        let (line, last) = accounts.entry(account).or_default();
        *line += &format!(" {booked}");
        *last = balance;
    }
    for (account, (line, balance)) in accounts {
        let name = account.split('-').next().unwrap_or_default();
        println!("{name}:{line} = {balance}");
    }
    worker.stop().await;
    Ok(())
}
