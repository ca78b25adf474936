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
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Failure,
    item::{Item, Numbers, PATIENCE, Question},
    lifeline,
    plan::{HISTORY, Kind, Plan},
    random::Random,
    raw::Raw,
    reach::below,
};

/// After a publish that was not confirmed.
const PAUSE: Duration = Duration::from_millis(50);
/// How often an unknown one is published again.
const TRIES: usize = 5;

/// What all tasks of a publisher share.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    /// What all agree on.
    pub(crate) plan: Arc<Plan>,
    /// What happens.
    pub(crate) history: Arc<Recorder>,
    /// A client of Longshore.
    pub(crate) client: Client,
    /// A plain client.
    pub(crate) raw: Arc<Raw>,
}

/// One of the tasks of a publisher.
struct Task {
    load: Publisher,
    numbers: Numbers,
    /// It is a plain client.
    strange: bool,
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
    let connected = async {
        let raw = below(&plan).await;
        loop {
            match plan.connect("chaos-publisher", &plan.url, None).await {
                Ok(client) => return (client, raw),
                Err(error) => eprintln!("cannot connect: {error}"),
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let (client, raw) = tokio::select! {
        biased;
        _ = told.recv() => return Ok(()),
        connected = connected => connected,
    };
    let raw = Arc::new(raw);
    let stopping = Arc::new(AtomicBool::new(false));
    let load = Publisher {
        plan,
        history,
        client: client.clone(),
        raw: Arc::clone(&raw),
    };
    let tasks = load.start(number as u64, boot, &stopping);
    told.recv().await;
    stopping.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await??;
    }
    raw.close().await;
    client.close().await;
    Ok(())
}

impl Publisher {
    /// Starts the tasks of this publisher.
    pub(crate) fn start(
        &self,
        number: u64,
        boot: u64,
        stopping: &Arc<AtomicBool>,
    ) -> Vec<JoinHandle<Result<(), Failure>>> {
        let load = self.plan.load;
        // Moving it to its partition and taking it out of the queue are two steps: a crash between
        // them leaves a second one, which only a window finds out.
        let strange = match self.plan.known_in_sessions {
            true => load.strange,
            false => 0,
        };
        let rates = [
            (Kind::Plain, load.plain, false),
            (Kind::Sessions, load.sessions, false),
            (Kind::Dedup, load.dedup, false),
            (Kind::Requests, load.requests, false),
            (Kind::Sessions, strange, true),
        ];
        let mut tasks = Vec::new();
        for (kind, rate, strange) in rates {
            let Some(pace) = (Plan::TASKS * 1_000_000_000).checked_div(rate) else {
                continue;
            };
            let publishers = self.plan.publishers as u64;
            for task in (0..Plan::TASKS).filter(|task| task % publishers == number) {
                let numbers = Numbers { kind, task, boot };
                let task = Task {
                    load: self.clone(),
                    numbers,
                    strange,
                    queue: kind.queue(&self.plan),
                };
                let pace = Duration::from_nanos(pace);
                tasks.push(tokio::spawn(task.run(pace, Arc::clone(stopping))));
            }
        }
        tasks
    }
}

impl Task {
    async fn run(self, pace: Duration, stopping: Arc<AtomicBool>) -> Result<(), Failure> {
        let mut random = Random::of(self.load.plan.seed, self.numbers.number(0, 0));
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
                _ if self.strange => {
                    let item = Item::new(&self.load.plan, self.numbers.strange(count));
                    self.load.history.add(Event::Publish(item.publish()))?;
                    let raw = &self.load.raw;
                    let answer = raw.publish(item.kind.name(), item.envelope()).await;
                    if self.answered(&item, answer)? != Answer::Confirmed {
                        sleep(PAUSE).await;
                    }
                }
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
        Item::new(&self.load.plan, self.numbers.number(count, copy))
    }

    async fn publish(&self, item: &Item) -> Result<Answer, Failure> {
        self.load.history.add(Event::Publish(item.publish()))?;
        let client = &self.load.client;
        let mut answers = client.publish_all(&self.queue, [item.draft()]).await;
        let nothing = || Err(Error::new(ErrorKind::Unknown, "no answer"));
        self.answered(item, answers.pop().unwrap_or_else(nothing))
    }

    fn answered(
        &self,
        item: &Item,
        answer: longshore::Result<Published>,
    ) -> Result<Answer, Failure> {
        let answer = match answer {
            Ok(Published::Duplicate) => Answer::Duplicate,
            Ok(_) => Answer::Confirmed,
            Err(error) => failed(&error),
        };
        let message = item.number;
        self.load.history.add(Event::Answered { message, answer })?;
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
        self.load.history.add(Event::Publish(item.publish()))?;
        let mut ask = self.load.client.request(&self.queue, &question);
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
            self.load.history.add(Event::Wrong { message, what })?;
        }
        let answer = match answered {
            Ok(_) | Err(RequestError::Fault(_) | RequestError::Undecodable(_)) => Answer::Confirmed,
            Err(RequestError::NotSent(error)) => failed(&error),
            Err(_) => Answer::Unknown,
        };
        self.load.history.add(Event::Answered { message, answer })?;
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
