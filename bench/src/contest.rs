//! Who runs against whom, and how one run is measured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::{
    arguments::{Arguments, Broker, Mode},
    contestant::{Contestant, Way},
    job::Job,
    longshore::{Longshore, Publishing, Work},
    raw_amqp::RawAmqp,
    raw_memory::RawMemory,
    raw_redis::RawRedis,
    report::{Row, Sample, Table},
    tally::{Mark, Tally},
};

/// Messages of the run nobody counts, before the first round.
const WARM_UP: u32 = 2_000;
/// Between two messages of a latency run.
const TICK: Duration = Duration::from_micros(500);
const MOST_LATENCIES: u32 = 10_000;
/// After this a run is given up and what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(120);

static RUNS: AtomicU32 = AtomicU32::new(1);

/// Lets all contestants take turns.
///
/// # Errors
/// A broker could not be reached, or a client failed.
pub(crate) async fn run(
    broker: Broker,
    mode: Mode,
    arguments: &Arguments,
) -> anyhow::Result<Table> {
    let mut contestants = line_up(broker, mode).await?;
    contestants.retain(|contestant| {
        let name = contestant.name();
        arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part))
    });
    let messages = arguments.messages.unwrap_or(match broker {
        Broker::Amqp => 100_000,
        Broker::Redis | Broker::Memory => 500_000,
    });
    let messages = match mode {
        Mode::Latency => messages.min(MOST_LATENCIES),
        Mode::Consume | Mode::Publish => messages,
    };
    let mut rows: Vec<Row> = contestants
        .iter()
        .map(|contestant| Row::new(contestant.name(), contestant.is_raw()))
        .collect();
    for contestant in &contestants {
        measure(contestant, Mode::Consume, WARM_UP)
            .await
            .with_context(|| format!("{}, warming up", contestant.name()))?;
    }
    for round in 0..arguments.rounds as usize {
        // Nobody always follows the same neighbour.
        for turn in 0..contestants.len() {
            let place = (round + turn) % contestants.len();
            let contestant = &contestants[place];
            let count = if contestant.is_slow() {
                messages / 10
            } else {
                messages
            };
            let sample = measure(contestant, mode, count)
                .await
                .with_context(|| format!("{mode} by {}", contestant.name()))?;
            rows[place].samples.push(sample);
        }
    }
    Ok(Table {
        broker,
        mode,
        messages,
        rows,
    })
}

async fn line_up(broker: Broker, mode: Mode) -> anyhow::Result<Vec<Arc<dyn Contestant>>> {
    let url = match broker {
        Broker::Amqp => url("LONGSHORE_TEST_AMQP_URL")?,
        Broker::Redis => url("LONGSHORE_TEST_REDIS_URL")?,
        Broker::Memory => "memory:".to_owned(),
    };
    let mut all: Vec<Arc<dyn Contestant>> = Vec::new();
    let ways = match mode {
        Mode::Consume => vec![Way::OneByOne, Way::Best],
        Mode::Publish => vec![Way::OneByOne, Way::Tasks, Way::Best],
        Mode::Latency => vec![Way::Best],
    };
    for way in ways {
        match broker {
            Broker::Amqp => all.push(Arc::new(RawAmqp::connect(&url, way).await?)),
            Broker::Redis => all.push(Arc::new(RawRedis::connect(&url, way).await?)),
            Broker::Memory if way != Way::Best => {}
            Broker::Memory => all.push(Arc::new(RawMemory::new())),
        }
    }
    let batches = Publishing::Batches;
    let ours = match mode {
        Mode::Consume => vec![
            ("Longshore, defaults", Work::Defaults, batches),
            ("Longshore, prefetch 512", Work::Wide, batches),
        ],
        Mode::Publish => vec![
            (
                "Longshore, 512 tasks publish",
                Work::Wide,
                Publishing::Tasks,
            ),
            ("Longshore, 2 × 256 publish_all", Work::Wide, batches),
        ],
        Mode::Latency => vec![("Longshore, defaults", Work::Defaults, batches)],
    };
    for (name, work, publishing) in ours {
        all.push(Arc::new(
            Longshore::connect(name, &url, work, publishing).await?,
        ));
    }
    Ok(all)
}

fn url(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable)
        .with_context(|| format!("{variable} is not set: start this with `cargo xtask bench`"))
}

async fn measure(
    contestant: &Arc<dyn Contestant>,
    mode: Mode,
    count: u32,
) -> anyhow::Result<Sample> {
    let tally = Tally::new(RUNS.fetch_add(1, Ordering::Relaxed), count);
    let tally = Arc::new(match mode {
        Mode::Latency => tally.with_latencies(),
        Mode::Consume | Mode::Publish => tally,
    });
    contestant.prepare().await?;
    let (took, cpu) = match mode {
        Mode::Consume => {
            contestant.publish(tally.run, count).await?;
            consume(contestant, &tally).await?;
            tally.span()
        }
        Mode::Publish => {
            let begun = Mark::now();
            contestant.publish(tally.run, count).await?;
            let span = begun.until(Mark::now());
            // Not measured: what was confirmed must be there.
            consume(contestant, &tally).await?;
            span
        }
        Mode::Latency => {
            let consuming = tokio::spawn({
                let (contestant, tally) = (Arc::clone(contestant), Arc::clone(&tally));
                async move { consume(&contestant, &tally).await }
            });
            // To subscribe takes a moment; how long nobody says.
            tokio::time::sleep(Duration::from_millis(500)).await;
            trickle(contestant, tally.run, count).await?;
            consuming.await??;
            tally.span()
        }
    };
    Ok(Sample {
        messages: count,
        took,
        cpu,
        lost: tally.lost(),
        duplicated: tally.duplicates(),
        left: contestant.left().await?,
        latencies: tally.latencies(),
    })
}

async fn consume(contestant: &Arc<dyn Contestant>, tally: &Arc<Tally>) -> anyhow::Result<()> {
    match tokio::time::timeout(PATIENCE, contestant.consume(Arc::clone(tally))).await {
        Ok(done) => done,
        Err(_) => Ok(()),
    }
}

/// Publishes at a steady rate and never waits for a confirmation before the next message, so that a slow
/// one is not hidden.
async fn trickle(contestant: &Arc<dyn Contestant>, run: u32, count: u32) -> anyhow::Result<()> {
    let (clock, mut ticks) = mpsc::unbounded_channel();
    // A thread: tokio's timers are no finer than a millisecond.
    let ticking = std::thread::spawn(move || {
        let begun = Instant::now();
        for number in 0..count {
            let due = begun + TICK * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if clock.send(number).is_err() {
                return;
            }
        }
    });
    let mut flights = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            tick = ticks.recv() => match tick {
                Some(number) => flights.push(contestant.publish_one(Job::new(run, number))),
                None => break,
            },
            Some(landed) = flights.next(), if !flights.is_empty() => landed?,
        }
    }
    while let Some(landed) = flights.next().await {
        landed?;
    }
    let _ = ticking.join();
    Ok(())
}
