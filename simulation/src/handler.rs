//! What handlers do.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use longshore::{Context, HandlerError, Reply};
use longshore_core::partition_of;
use longshore_testing::history::{Answer, Effect, Ending, Event, Fate};

use crate::{
    catalogue::{self, Catalogue},
    job::{Ask, Job, Told, Unable},
    process::Process,
    quiet,
    scenario::DOWNSTREAM,
    world::World,
};

/// Where a handler works.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) process: Arc<Process>,
    /// By its place in the scenario.
    pub(crate) queue: usize,
}

/// The handler of jobs.
pub(crate) async fn work(post: Post, job: Job, cx: Context) -> Result<(), HandlerError> {
    post.alive(post.attend(&job, &cx)).await
}

/// The handler of requests.
pub(crate) async fn tell(post: Post, ask: Ask, cx: Context) -> Result<Reply<Told>, HandlerError> {
    let number = ask.0.number;
    post.alive(post.attend(&ask.0, &cx)).await?;
    match ask.0.unable {
        true => Err(HandlerError::fault(&Unable { number })),
        false => Ok(Reply(Told { number })),
    }
}

/// Writes down how a start ended, also where nobody is left to say so.
struct Ended<'a> {
    post: &'a Post,
    job: &'a Job,
    attempt: u32,
    over: AtomicBool,
}

impl Ended<'_> {
    fn with(&self, how: Ending) {
        if !self.over.swap(true, Ordering::SeqCst) && !self.post.process.killed.is_cancelled() {
            let (message, attempt) = (self.job.number, self.attempt);
            self.post.add(Event::End {
                message,
                attempt,
                how,
            });
        }
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.with(match std::thread::panicking() {
            true => Ending::Panicked,
            false => Ending::Cancelled,
        });
    }
}

impl Post {
    fn world(&self) -> &Arc<World> {
        &self.process.world
    }

    fn add(&self, event: Event) {
        self.world().diary.add(self.process.number, event);
    }

    /// The same for as long as the process lives, and nothing from then on.
    async fn alive<T>(&self, working: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.process.killed.cancelled() => {}
            done = working => return done,
        }
        pending().await
    }

    async fn attend(&self, job: &Job, cx: &Context) -> Result<(), HandlerError> {
        let token = cx.session().token();
        let shape = &self.world().scenario.queues[self.queue];
        if shape.partitions() > 0
            && let Some(key) = job.key
        {
            let of = shape.partitions();
            let index = partition_of(&catalogue::key(key), of);
            self.process
                .owns(format!("{}.s{of}.{index}", shape.name), token);
        }
        let number = Catalogue::number(cx.envelope()).filter(|number| *number == job.number);
        let catalogue = &self.world().catalogue;
        self.add(Event::Start {
            message: job.number,
            attempt: cx.attempt(),
            token,
            lane: cx.envelope().priority.as_ref().map(ToString::to_string),
            intact: number.is_some_and(|number| catalogue.is_intact(number, cx.envelope())),
        });
        let ended = Ended {
            post: self,
            job,
            attempt: cx.attempt(),
            over: AtomicBool::new(false),
        };
        let done = self.perform(job, cx, token, &ended).await;
        ended.with(match &done {
            Ok(()) => Ending::Succeeded,
            Err(error) if error.is_permanent() => Ending::Refused,
            Err(_) => Ending::Failed,
        });
        done
    }

    async fn perform(
        &self,
        job: &Job,
        cx: &Context,
        token: u64,
        ended: &Ended<'_>,
    ) -> Result<(), HandlerError> {
        let world = self.world();
        let mut state: Option<Vec<u64>> = None;
        if job.stateful {
            let seen = cx.session().state::<Vec<u64>>().await?.unwrap_or_default();
            world.witness.saw(job, &seen);
            state = Some(seen);
        }
        if !job.work.is_zero() {
            let cancelled = cx.cancellation();
            tokio::select! {
                biased;
                () = tokio::time::sleep(job.work) => {}
                () = cancelled.cancelled(), if !job.stubborn => {
                    ended.with(Ending::Cancelled);
                    return Err("cancelled".into());
                }
            }
        }
        match job.fate {
            Fate::Fail(times) if cx.attempt() <= times => return Err("not yet".into()),
            Fate::FailAlways => return Err("never".into()),
            Fate::Refuse => return Err(HandlerError::permanent("no")),
            Fate::Panic => std::panic::panic_any(quiet::WANTED),
            Fate::Hang => pending::<()>().await,
            Fate::Abort => {
                self.process.die();
                pending::<()>().await;
            }
            _ => {}
        }
        let session = job.key.map(|key| format!("{}/{key}", self.queue));
        let (diary, process) = (&world.diary, self.process.number);
        if diary.effect(process, job.number, session.as_deref(), token) == Effect::Stale {
            return Err("somebody else has the session".into());
        }
        if let Some(mut list) = state {
            list.push(job.number);
            cx.session().set_state(&list)?;
        }
        self.publish_child(job, cx).await
    }

    /// What it publishes is on its way only once it has succeeded, and nobody tells it.
    async fn publish_child(&self, job: &Job, cx: &Context) -> Result<(), HandlerError> {
        let world = self.world();
        let child = job.child.and_then(|child| world.catalogue.item(child));
        let Some(child) = child else {
            return Ok(());
        };
        self.add(world.catalogue.publish(child));
        self.add(Event::Answered {
            message: child.job.number,
            answer: Answer::Unknown,
        });
        let queue = world.queues.iter().find(|queue| queue.name() == DOWNSTREAM);
        if let Some(queue) = queue {
            let (name, value) = catalogue::number_header(child);
            cx.publish(queue, &child.job).header(name, value).await?;
        }
        Ok(())
    }
}
