//! A message that fails until its attempts are used up, and its way back: redrive.
//!
//! ```text
//! $ cargo run --example retry_dead_letter
//! attempt 1 of 3: the printer is out of paper
//! attempt 2 of 3: the printer is out of paper
//! attempt 3 of 3: the printer is out of paper
//! dead letter: exhausted after 3 attempts: the printer is out of paper
//! somebody brings paper; redriving
//! attempt 1 of 3: printed page 1
//! 0 dead letters left
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore::{Backoff, Context, Handler, HandlerError, Message, Queue, Router, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Print {
    page: u32,
}

impl Message for Print {
    const TYPE: &'static str = "print";
}

#[derive(Default)]
struct Printer {
    paper: AtomicBool,
    printed: AtomicBool,
}

impl Handler<Print> for Printer {
    async fn handle(&self, job: Print, cx: Context) -> Result<(), HandlerError> {
        let (attempt, of) = (cx.attempt(), cx.max_attempts());
        if !self.paper.load(Ordering::Relaxed) {
            println!("attempt {attempt} of {of}: the printer is out of paper");
            return Err("the printer is out of paper".into());
        }
        println!("attempt {attempt} of {of}: printed page {}", job.page);
        self.printed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), longshore::Error> {
    let client = longshore::connect("memory:").await?;
    let jobs = Queue::new("print-jobs");
    let printer = Arc::new(Printer::default());
    let worker = Worker::new(&client, &jobs, Router::new().handle(Arc::clone(&printer)))
        .max_attempts(3)
        .backoff(Backoff::new(
            Duration::from_millis(50),
            Duration::from_secs(1),
        ))
        .start()
        .await?;
    client.publish(&jobs, &Print { page: 1 }).await?;

    let dead_letters = client.dead_letters(&jobs);
    let letter = loop {
        if let Some(letter) = dead_letters.peek().await? {
            break letter;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (reason, attempts, detail) = (&letter.reason, letter.attempts, &letter.detail);
    println!("dead letter: {reason} after {attempts} attempts: {detail}");

    println!("somebody brings paper; redriving");
    printer.paper.store(true, Ordering::Relaxed);
    dead_letters.redrive(&letter.id).await?;
    while !printer.printed.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{} dead letters left", client.stats(&jobs).await?.dead);
    worker.stop().await;
    Ok(())
}
