//! Sessions keep their order and their peace while workers are killed and brokers restarted.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration};

use longshore::{Client, Connect, Queue, Reason};
use longshore_testing::brokers::{Broker, BrokerKind};
use longshore_tests::{
    history::{self, History},
    service::{Service, terminate},
    step::{Step, publish_steps},
    unique,
};
use tokio::process::Child;

const SERVICE: &str = env!("CARGO_BIN_EXE_session_service");
const ATTEMPTS: u32 = 5;

fn history_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.history"))
}

/// Services that are killed and started again.
struct Crew {
    service: Service,
    history: PathBuf,
    children: Vec<Child>,
    kills: usize,
}

impl Crew {
    fn start(url: &str, queue: &Queue, history: PathBuf, workers: usize) -> Self {
        let service = Service::new(
            SERVICE,
            &[
                ("url", url),
                ("queue", queue.name()),
                ("history", history.to_str().unwrap()),
                ("max-attempts", &ATTEMPTS.to_string()),
                ("busy-us", "40000"),
            ],
        );
        let children = (0..workers).map(|_| service.spawn().unwrap()).collect();
        Self {
            service,
            history,
            children,
            kills: 0,
        }
    }

    /// Kills one with -9 and starts another in its place.
    async fn kill_one(&mut self) {
        let index = self.kills % self.children.len();
        let process = self.children[index].id().unwrap();
        History::open(&self.history).unwrap().kill(process).unwrap();
        self.children[index].kill().await.unwrap();
        self.children[index] = self.service.spawn().unwrap();
        self.kills += 1;
    }

    /// Starts again what could not start while the broker was away.
    fn complete(&mut self) {
        for child in &mut self.children {
            if child.try_wait().unwrap().is_some() {
                *child = self.service.spawn().unwrap();
            }
        }
    }

    async fn stop(mut self) {
        self.complete();
        for child in &mut self.children {
            terminate(child).await.unwrap();
            let status = child.wait().await.unwrap();
            // One that was started a moment ago does not listen to the signal yet.
            let by_signal = status.signal() == Some(15);
            assert!(status.success() || by_signal, "{status}");
        }
    }
}

async fn finished(client: &Client, queue: &Queue) -> bool {
    client.stats(queue).await.is_ok_and(|stats| {
        stats.ready + stats.in_flight.unwrap_or(0) + stats.delayed.unwrap_or(0) == 0
    })
}

/// 200 sessions, 50,000 messages, 2 % of the starts fail and some messages always, a worker dies
/// every 3 s, the broker is restarted twice.
async fn through_everything(kind: BrokerKind) {
    const KEYS: u64 = 200;
    const STEPS: u64 = 250;
    let mut broker = Broker::start(kind).await.unwrap();
    let url = broker.url();
    let name = unique("sessions");
    let history = history_file(&name);
    History::open(&history).unwrap();
    let queue = Queue::new(&name).sessions(16);
    let connect = || Connect::new(&url).heartbeat(Duration::from_secs(2)).open();
    let client = connect().await.unwrap();
    let steps: Vec<Step> = (0..STEPS)
        .flat_map(|number| {
            (0..KEYS).map(move |key| Step {
                key,
                number,
                fails: (key * STEPS + number) % 997 == 5,
            })
        })
        .collect();
    publish_steps(&client, &queue, &steps).await.unwrap();

    let mut crew = Crew::start(&url, &queue, history.clone(), 3);
    let mut restarts = 0;
    let begun = std::time::Instant::now();
    let seen = |history: &PathBuf| {
        let happened = history::read(history).unwrap();
        let ends = happened.iter().filter(|h| h.what == "end").count() as u64;
        (ends, happened)
    };
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (ends, happened) = seen(&history);
        let done: BTreeSet<_> = happened
            .iter()
            .filter(|h| h.what == "done")
            .map(|h| (h.key, h.number))
            .collect();
        let failing = steps.iter().filter(|step| step.fails).count();
        if done.len() + failing >= steps.len() && finished(&client, &queue).await {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "{} of {} done after {ends} starts and {} kills",
            done.len(),
            steps.len(),
            crew.kills
        );
        crew.complete();
        crew.kill_one().await;
        // A third and two thirds through, while the killed one is being replaced.
        if restarts < 2 && done.len() as u64 * 3 > (restarts + 1) * steps.len() as u64 {
            restarts += 1;
            broker.stop().await.unwrap();
            broker.start_again().await.unwrap();
        }
    }
    let took = begun.elapsed();
    let kills = crew.kills;
    crew.stop().await;

    let (_, happened) = seen(&history);
    let verdict = history::judge(&happened, ATTEMPTS);
    println!(
        "{kind:?}: {} starts of {} messages under {} ownerships of keys, {kills} kills, {restarts} restarts, \
         {} replays, {took:.1?}",
        verdict.starts,
        steps.len(),
        verdict.ownerships,
        verdict.replays.len()
    );
    assert!(
        kills >= 3 && restarts == 2,
        "{kills} kills, {restarts} restarts"
    );
    assert!(verdict.inversions.is_empty(), "{:?}", verdict.inversions);
    assert!(verdict.overlaps.is_empty(), "{:?}", verdict.overlaps);
    assert!(verdict.replays.is_empty(), "{:?}", verdict.replays);
    assert!(verdict.stale.is_empty(), "{:?}", verdict.stale);
    assert!(verdict.attempts.is_empty(), "{:?}", verdict.attempts);

    // A crash can use up the last attempt of an innocent step; then it is dead, not lost.
    let letters = client.dead_letters(&queue).list(None, 1_000).await.unwrap();
    let mut dead = BTreeSet::new();
    for letter in &letters {
        let step: Step = serde_json::from_slice(&letter.envelope.body).unwrap();
        assert!(
            matches!(letter.reason, Reason::Exhausted | Reason::Crashed),
            "{letter:?}"
        );
        let once = dead.insert((step.key, step.number));
        // On RabbitMQ copy and acknowledgement are two steps, and a process can die between them.
        assert!(once || kind == BrokerKind::RabbitMq, "twice: {letter:?}");
        assert_eq!(
            letter.envelope.key.as_deref(),
            Some(&*format!("key-{}", step.key))
        );
    }
    for step in &steps {
        let of = (step.key, step.number);
        let (done, dead) = (verdict.done.contains(&of), dead.contains(&of));
        assert!(done != dead, "{step:?}: done {done}, dead {dead}");
        assert!(dead || !step.fails, "{step:?} was done");
    }
    std::fs::remove_file(&history).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_50000_messages_of_200_sessions_keep_order_through_kills_and_restarts() {
    through_everything(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_50000_messages_of_200_sessions_keep_order_through_kills_and_restarts() {
    through_everything(BrokerKind::Redis).await;
}
