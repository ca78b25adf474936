//! Messages that a worker sees only after a while: one slow message holds back nobody.
//!
//! ```text
//! $ cargo run --example delayed
//! published: late, soon, now
//! now
//! soon, not early
//! late, not early
//! ```

use std::time::{Duration, SystemTime};

use longshore::{Context, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Reminder {
    text: String,
    due: SystemTime,
}

impl Message for Reminder {
    const TYPE: &'static str = "reminder";
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let client = longshore::connect("memory:").await?;
    let reminders = Queue::new("reminders");
    for (text, delay) in [("late", 600), ("soon", 200), ("now", 0)] {
        let delay = Duration::from_millis(delay);
        let reminder = Reminder {
            text: text.to_owned(),
            due: SystemTime::now() + delay,
        };
        client.publish(&reminders, &reminder).delay(delay).await?;
    }
    println!("published: late, soon, now");

    let (seen, mut reminded) = mpsc::channel(8);
    let router = Router::new().handle_fn(move |reminder: Reminder, _: Context| {
        let seen = seen.clone();
        async move {
            let early = SystemTime::now() < reminder.due;
            match (reminder.text.as_str(), early) {
                ("now", _) => println!("now"),
                (text, false) => println!("{text}, not early"),
                (text, true) => println!("{text}, early"),
            }
            seen.send(()).await.map_err(HandlerError::permanent)
        }
    });
    let worker = Worker::new(&client, &reminders, router).start().await?;
    for _ in 0..3 {
        reminded.recv().await;
    }
    worker.stop().await;
    Ok(())
}
