//! Many simulations on several threads.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Outcome, run};

/// How long one simulation may take in real time. Most take some milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether one takes longer.
const LOOK: Duration = Duration::from_millis(500);

/// What becomes of a seed.
#[derive(Debug)]
pub enum Run {
    /// It came to an end.
    Over(Box<Outcome>),
    /// It could not begin, for this reason.
    Failed(u64, String),
    /// It went on for longer than [`PATIENCE`] in real time. Its thread is lost.
    Stalled(u64),
}

/// What one thread is at: 0 for nothing, else one more than its seed.
#[derive(Default)]
struct Desk {
    seed: AtomicU64,
    since: AtomicU64,
}

/// Runs the simulations of these seeds on so many threads, and tells what has become of each, in any
/// order. What a seed does depends on nothing but the seed.
pub fn run_all(seeds: Range<u64>, threads: usize, mut tell: impl FnMut(Run)) {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let begun = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let mut desks = Vec::new();
    for _ in 0..threads.max(1) {
        let desk = Arc::new(Desk::default());
        desks.push(Arc::clone(&desk));
        let (next, sender, end) = (Arc::clone(&next), sender.clone(), seeds.end);
        // Not joined: one that stalls never ends.
        thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= end {
                    return;
                }
                let now = begun.elapsed().as_millis() as u64;
                desk.since.store(now, Ordering::SeqCst);
                desk.seed.store(seed + 1, Ordering::SeqCst);
                let run = match run(seed) {
                    Ok(outcome) => Run::Over(Box::new(outcome)),
                    Err(error) => Run::Failed(seed, error.to_string()),
                };
                desk.seed.store(0, Ordering::SeqCst);
                if sender.send(run).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut left = seeds.end.saturating_sub(seeds.start);
    while left > 0 {
        match receiver.recv_timeout(LOOK) {
            Ok(run) => {
                left -= 1;
                tell(run);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let now = begun.elapsed();
                let stalled = desks.iter().filter_map(|desk| {
                    let seed = desk.seed.load(Ordering::SeqCst).checked_sub(1)?;
                    let since = Duration::from_millis(desk.since.load(Ordering::SeqCst));
                    (now.saturating_sub(since) > PATIENCE).then_some(seed)
                });
                let stalled: Vec<u64> = stalled.collect();
                if !stalled.is_empty() {
                    stalled
                        .into_iter()
                        .for_each(|seed| tell(Run::Stalled(seed)));
                    return;
                }
            }
        }
    }
}
