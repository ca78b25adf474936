//! The sub-command `publisher`: publishes to all queues at once, until SIGTERM.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use longshore::{Client, Error, ErrorKind, Published, Queue, RequestError};
use longshore_core::chaos::before_crash;
use longshore_testing::history::{Answer, Event, Recorder};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Failure,
    item::{Item, Numbers, Question},
    lifeline,
    plan::{HISTORY, Kind, Plan},
    random::Random,
};

/// After a publish that was not confirmed.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a reply is awaited.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How often an unknown one is published again.
const TRIES: usize = 5;

/// One of the tasks of a publisher.
#[derive(Clone)]
struct Task {
    plan: Arc<Plan>,
    history: Arc<Recorder>,
    client: Client,
    numbers: Numbers,
    queue: Queue,
}

/// Publishes until it is told to stop.
///
/// # Errors
/// What is no fault of a broker.
pub(crate) async fn run(number: usize, boot: u64) -> Result<(), Failure> {
    lifeline::hold();
    let mut told = signal(SignalKind::terminate())?;
    let plan = Arc::new(Plan::read(Path::new("."))?);
    let history = Arc::new(Recorder::open(HISTORY)?);
    let last = Arc::clone(&history);
    before_crash(move || {
        let victim = std::process::id();
        let _ = last.add(Event::Killed { victim });
    });
    let client = loop {
        match plan.connect("chaos-publisher", &plan.url, None).await {
            Ok(client) => break client,
            Err(error) => eprintln!("cannot connect: {error}"),
        }
        tokio::select! {
            biased;
            _ = told.recv() => return Ok(()),
            () = sleep(Duration::from_millis(200)) => {}
        }
    };
    let stopping = Arc::new(AtomicBool::new(false));
    let tasks = publish(&plan, &history, &client, number as u64, boot, &stopping);
    told.recv().await;
    stopping.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await??;
    }
    client.close().await;
    Ok(())
}

/// Starts the tasks of one publisher.
pub(crate) fn publish(
    plan: &Arc<Plan>,
    history: &Arc<Recorder>,
    client: &Client,
    number: u64,
    boot: u64,
    stopping: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<Result<(), Failure>>> {
    let mut tasks = Vec::new();
    for kind in Kind::ALL {
        let rate = match kind {
            Kind::Plain => plan.load.plain,
            Kind::Sessions => plan.load.sessions,
            Kind::Dedup => plan.load.dedup,
            Kind::Requests => plan.load.requests,
        };
        let Some(pace) = (Plan::TASKS * 1_000_000_000).checked_div(rate) else {
            continue;
        };
        let mine = (0..Plan::TASKS).filter(|task| task % plan.publishers as u64 == number);
        for task in mine {
            let task = Task {
                plan: Arc::clone(plan),
                history: Arc::clone(history),
                client: client.clone(),
                numbers: Numbers {
                    kind: *kind,
                    task,
                    boot,
                },
                queue: kind.queue(plan),
            };
            let stopping = Arc::clone(stopping);
            tasks.push(tokio::spawn(task.run(Duration::from_nanos(pace), stopping)));
        }
    }
    tasks
}

impl Task {
    async fn run(self, pace: Duration, stopping: Arc<AtomicBool>) -> Result<(), Failure> {
        let mut random = Random::of(self.plan.seed, self.numbers.number(0, 0));
        let mut next = Instant::now() + pace.mul_f64(random.below(1_000) as f64 / 1_000.0);
        for count in 0.. {
            // What an outage has kept from being published is not made up for.
            next = next.max(Instant::now() - pace);
            sleep_until(next).await;
            next += pace;
            if stopping.load(Ordering::SeqCst) {
                break;
            }
            match self.numbers.kind {
                Kind::Plain | Kind::Sessions => {
                    let item = self.item(count, 0);
                    if self.publish(&item).await? != Answer::Confirmed {
                        sleep(PAUSE).await;
                    }
                }
                Kind::Dedup => self.copies(count, &mut random).await?,
                Kind::Requests => self.ask(&self.item(count, 0)).await?,
            }
        }
        Ok(())
    }

    fn item(&self, count: u64, copy: u64) -> Item {
        Item::new(&self.plan, self.numbers.number(count, copy))
    }

    async fn publish(&self, item: &Item) -> Result<Answer, Failure> {
        self.history.add(Event::Publish(item.publish()))?;
        let answered = self.client.publish_all(&self.queue, [item.draft()]).await;
        let answer = match answered.into_iter().next() {
            Some(Ok(Published::Duplicate)) => Answer::Duplicate,
            Some(Ok(_)) => Answer::Confirmed,
            Some(Err(error)) => failed(&error),
            None => Answer::Unknown,
        };
        let message = item.number;
        self.history.add(Event::Answered { message, answer })?;
        Ok(answer)
    }

    /// Publishes two or three copies under one id, and each again while nobody can say whether it
    /// arrived.
    async fn copies(&self, count: u64, random: &mut Random) -> Result<(), Failure> {
        for copy in 0..random.within(2..=3) {
            let item = self.item(count, copy);
            for _ in 0..TRIES {
                match self.publish(&item).await? {
                    Answer::Unknown => sleep(PAUSE).await,
                    Answer::Refused => {
                        sleep(PAUSE).await;
                        break;
                    }
                    _ => break,
                }
            }
            sleep(random.millis(0..=100)).await;
        }
        Ok(())
    }

    async fn ask(&self, item: &Item) -> Result<(), Failure> {
        let question: Question = item.read().ok_or("a request can be read")?;
        self.history.add(Event::Publish(item.publish()))?;
        let mut ask = self.client.request(&self.queue, &question);
        for (name, value) in item.headers() {
            ask = ask.header(name, value);
        }
        let answered = ask.id(item.id()).timeout(PATIENCE).await;
        let message = item.number;
        let wrong = match &answered {
            Ok(reply) if *reply != question.reply() => Some(format!("it was answered {reply:?}")),
            Err(RequestError::Undecodable(why)) => Some(format!("its reply cannot be read: {why}")),
            _ => None,
        };
        if let Some(what) = wrong {
            self.history.add(Event::Wrong { message, what })?;
        }
        let answer = match answered {
            Ok(_) | Err(RequestError::Fault(_) | RequestError::Undecodable(_)) => Answer::Confirmed,
            Err(RequestError::NotSent(error)) => failed(&error),
            Err(_) => Answer::Unknown,
        };
        self.history.add(Event::Answered { message, answer })?;
        if answer == Answer::Refused {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Only what is definite is a refusal.
fn failed(error: &Error) -> Answer {
    match error.kind() {
        ErrorKind::Unknown => Answer::Unknown,
        _ => Answer::Refused,
    }
}
