//! Sessions keep their order and their peace while workers are killed and brokers restarted.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration};

use longshore::{Client, Connect, Queue};
use longshore_testing::{
    brokers::{Broker, BrokerKind},
    checker::{Checker, Evidence, Report, Rules, Verdict},
    history::{self, Answer, Ending, Event, Fate, Publish, Recorder},
};
use longshore_tests::{
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
    history: Recorder,
    children: Vec<Child>,
    kills: u64,
}

impl Crew {
    fn start(url: &str, queue: &Queue, history: &str, workers: usize) -> Self {
        let service = Service::new(
            SERVICE,
            &[
                ("url", url),
                ("queue", queue.name()),
                ("history", history),
                ("max-attempts", &ATTEMPTS.to_string()),
                ("busy-us", "40000"),
            ],
        );
        let children = (0..workers).map(|_| service.spawn().unwrap()).collect();
        Self {
            service,
            history: Recorder::open(history).unwrap(),
            children,
            kills: 0,
        }
    }

    /// Kills one with -9 and starts another in its place.
    async fn kill_one(&mut self) {
        let index = usize::try_from(self.kills).unwrap() % self.children.len();
        let victim = self.children[index].id().unwrap();
        self.history.add(Event::Killed { victim }).unwrap();
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

/// Publishes all steps, and notes that they are confirmed.
async fn publish(client: &Client, queue: &Queue, history: &Recorder, steps: &[Step]) {
    for step in steps {
        let fate = match step.fails {
            true => Fate::FailAlways,
            false => Fate::Succeed,
        };
        let publish = Publish {
            message: step.message(),
            queue: queue.name().to_owned(),
            key: Some(step.key),
            seq: step.number,
            dedup: None,
            delay: Duration::ZERO,
            fate,
        };
        history.add(Event::Publish(publish)).unwrap();
    }
    publish_steps(client, queue, steps).await.unwrap();
    for step in steps {
        let (message, answer) = (step.message(), Answer::Confirmed);
        history.add(Event::Answered { message, answer }).unwrap();
    }
}

/// How many steps have succeeded.
fn done(history: &str) -> usize {
    let mut done = BTreeSet::new();
    for record in history::read(history).unwrap() {
        if let Event::End {
            message,
            how: Ending::Succeeded,
            ..
        } = record.unwrap().event
        {
            done.insert(message);
        }
    }
    done.len()
}

/// Notes the dead letters of a queue.
async fn note_dead(client: &Client, queue: &Queue, history: &Recorder) {
    let letters = client.dead_letters(queue).list(None, 1_000).await.unwrap();
    for letter in &letters {
        let step: Step = serde_json::from_slice(&letter.envelope.body).unwrap();
        let dead = Event::Dead {
            message: step.message(),
            reason: letter.reason.as_str().to_owned(),
            attempts: letter.attempts,
            intact: letter.envelope.key.as_deref() == Some(&*step.session()),
        };
        history.add(dead).unwrap();
    }
}

fn judge(history: &str, kind: BrokerKind) -> Report {
    let rules = match kind {
        BrokerKind::RabbitMq => Rules::rabbitmq(),
        _ => Rules::default(),
    };
    let mut checker = Checker::new(Rules {
        max_attempts: ATTEMPTS,
        // A handler is shorter than this, so nothing is excused that did not run at that moment.
        aftermath: Duration::from_millis(500),
        evidence: Evidence {
            kills: 3,
            faults: 2,
            ..Evidence::default()
        },
        ..rules
    });
    for record in history::read(history).unwrap() {
        checker.observe(&record.unwrap());
    }
    checker.finish()
}

/// 200 sessions, 50,000 messages, 2 % of the starts fail and some messages always, a worker dies
/// every 3 s, the broker is restarted twice.
async fn through_everything(kind: BrokerKind) {
    const KEYS: u64 = 200;
    const STEPS: u64 = 250;
    let mut broker = Broker::start(kind).await.unwrap();
    let url = broker.url();
    let name = unique("sessions");
    let file = history_file(&name);
    let file = file.to_str().unwrap();
    let history = Recorder::open(file).unwrap();
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
    publish(&client, &queue, &history, &steps).await;

    let mut crew = Crew::start(&url, &queue, file, 3);
    let failing = steps.iter().filter(|step| step.fails).count();
    let mut restarts = 0;
    let begun = std::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let done = done(file);
        // A crash can use up the last attempt of an innocent step; then it is dead, not lost.
        let dead = match client.stats(&queue).await {
            Ok(stats) => usize::try_from(stats.dead).unwrap(),
            Err(_) => failing,
        };
        if done + dead.max(failing) >= steps.len() && finished(&client, &queue).await {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "{done} of {} done, {dead} dead after {} kills",
            steps.len(),
            crew.kills
        );
        crew.complete();
        crew.kill_one().await;
        // A third and two thirds through, while the killed one is being replaced.
        if restarts < 2 && done * 3 > (restarts + 1) * steps.len() {
            restarts += 1;
            let fault = || "restart".to_owned();
            history.add(Event::FaultBegins { fault: fault() }).unwrap();
            broker.stop().await.unwrap();
            broker.start_again().await.unwrap();
            history.add(Event::FaultEnds { fault: fault() }).unwrap();
        }
    }
    let took = begun.elapsed();
    crew.stop().await;
    note_dead(&client, &queue, &history).await;
    history.add(Event::Drained).unwrap();

    let report = judge(file, kind);
    let figures = &report.figures;
    println!("{kind:?} in {took:.1?}: {figures:?}");
    let violations: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
    let verdict = report.verdict();
    assert_eq!(
        verdict,
        Verdict::Passed,
        "{:?}\n{}\n{file}",
        report.missing,
        violations.join("\n")
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_50000_messages_of_200_sessions_keep_order_through_kills_and_restarts() {
    through_everything(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_50000_messages_of_200_sessions_keep_order_through_kills_and_restarts() {
    through_everything(BrokerKind::Redis).await;
}
