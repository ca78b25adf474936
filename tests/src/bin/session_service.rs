//! A service over a queue with sessions: notes every start and end, fails at random and for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore::{Backoff, Connect, Context, HandlerError, Queue, Router, Worker};
use longshore_testing::history::{Ending, Event, Recorder};
use longshore_tests::step::Step;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let history = Arc::new(Recorder::open(wanted("history")?)?);
    let partitions = u16::try_from(number("partitions")?.unwrap_or(16))?;
    let busy = Duration::from_micros(number("busy-us")?.unwrap_or(500));
    let drawn = Arc::new(AtomicU64::new(u64::from(std::process::id())));

    let client = Connect::new(wanted("url")?)
        .name("session-service")
        .heartbeat(Duration::from_secs(2))
        .open()
        .await?;
    let queue = Queue::new(&wanted("queue")?).sessions(partitions);
    let router = Router::new().handle_fn(move |step: Step, cx: Context| {
        let history = Arc::clone(&history);
        let luck = luck(&drawn);
        async move {
            let (message, attempt) = (step.message(), cx.attempt());
            history.add(Event::Start {
                message,
                attempt,
                token: cx.session().token(),
                lane: None,
                intact: cx.key() == Some(&*step.session()),
            })?;
            let mut end = End {
                history,
                message,
                attempt,
                how: Ending::Cancelled,
            };
            tokio::select! {
                biased;
                () = cx.cancellation().cancelled_owned() => return Err("the lock was lost".into()),
                () = tokio::time::sleep(busy) => {}
            }
            if step.fails || luck < 2 {
                end.how = Ending::Failed;
                return Err("not this time".into());
            }
            end.how = Ending::Succeeded;
            Ok::<_, HandlerError>(())
        }
    });
    let worker = Worker::new(&client, &queue, router)
        .max_attempts(u32::try_from(number("max-attempts")?.unwrap_or(5))?)
        .concurrency(usize::try_from(number("concurrency")?.unwrap_or(64))?)
        .lock(Duration::from_millis(number("lock-ms")?.unwrap_or(2_000)))
        .backoff(Backoff::new(
            Duration::from_millis(10),
            Duration::from_millis(50),
        ))
        .stop_deadline(Duration::from_secs(5));

    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    worker.run_until(terminated.recv()).await?;
    client.close().await;
    Ok(())
}

/// Notes the end of a start also where its future is dropped.
struct End {
    history: Arc<Recorder>,
    message: u64,
    attempt: u32,
    how: Ending,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.history.add(Event::End {
            message: self.message,
            attempt: self.attempt,
            how: self.how,
        });
    }
}

/// 0 to 99, by a linear congruential generator (Knuth, MMIX): good enough to fail now and then.
fn luck(drawn: &AtomicU64) -> u64 {
    let next = |n: u64| {
        n.wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
    };
    let before = drawn
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(next(n)))
        .unwrap_or_default();
    (next(before) >> 33) % 100
}

fn argument(name: &str) -> Option<String> {
    let name = format!("--{name}");
    let mut arguments = std::env::args().skip_while(|argument| *argument != name);
    arguments.nth(1)
}

fn wanted(name: &str) -> Result<String, String> {
    argument(name).ok_or_else(|| format!("--{name} is missing"))
}

fn number(name: &str) -> Result<Option<u64>, std::num::ParseIntError> {
    argument(name).map(|value| value.parse()).transpose()
}
