//! Keys come and go without end, and a worker remembers none of them. In a process of its own: it is its
//! memory that is looked at.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore::{Context, HandlerError, Queue, Router, Worker};
use longshore_tests::{step::Step, waiting::until};

/// KiB this process has resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.and_then(|kib| kib.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys_pass_through_one_worker_in_flat_memory() {
    const BATCH: u64 = 5_000;
    let client = longshore::connect("memory:").await.unwrap();
    let queue = Queue::new("keys").sessions(16);
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let router = Router::new().handle_fn(move |_: Step, _: Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, HandlerError>(()) }
    });
    let worker = Worker::new(&client, &queue, router).start().await.unwrap();
    let (mut warm, mut most) = (0, 0);
    for batch in 0..200 {
        let drafts = (0..BATCH).map(|n| {
            let key = batch * BATCH + n;
            let step = Step {
                key,
                number: 0,
                fails: false,
            };
            step.draft()
        });
        for answer in client.publish_all(&queue, drafts).await {
            answer.unwrap();
        }
        let wanted = (batch + 1) * BATCH;
        until("a batch is handled", Duration::from_secs(60), async || {
            (handled.load(Ordering::SeqCst) == wanted).then_some(())
        })
        .await;
        match batch {
            ..20 => warm = resident(),
            _ => most = resident().max(most),
        }
    }
    worker.stop().await;
    println!("{warm} KiB after 100,000 keys, {most} KiB at most until 1,000,000");
    assert!(most < warm + 8 * 1024, "{warm} KiB, then {most} KiB");
}
