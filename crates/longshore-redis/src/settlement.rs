//! One batch of settlements on its way. One write per batch; what got no answer is tried again on a
//! new connection until the confirmation time-out, by scripts that recognise what has already
//! happened.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Error, ErrorKind, Result, Settlement, Unsettled, Verdict,
    chaos::{CrashPoint, Flaw},
    defaults,
};
use redis::{Cmd, Pipeline, Value};

use crate::{
    entry::{EntryId, array, int},
    failure::{Broken, is_missing, is_passing, refused, unexpected},
    lane::Lane,
    mark::add_change,
    names::GROUP,
    scripts::{self, COMPLETE, DEAD_LETTER, RELEASE, RETRY, Script, whole_ms},
};

/// One settlement on its way.
struct Job {
    settlement: Settlement,
    id: EntryId,
    /// Starts noted when it was taken.
    base: u64,
    attempt: u32,
    /// Until then nobody else can have it: no owner check is needed.
    certain_until: Duration,
    /// The entry is held and no other settlement of it is under way.
    ours: bool,
    /// It was sent before, and no answer came.
    tried: bool,
    /// It is acknowledged, and the server would not delete it.
    undeleted: bool,
    answer: Option<Result<()>>,
}

/// Settles a batch; one answer each, in order.
pub(crate) async fn settle_all(
    lane: Arc<Lane>,
    batch: Vec<Settlement>,
) -> Vec<Result<(), Unsettled>> {
    let mut jobs: Vec<Job> = batch
        .into_iter()
        .map(|settlement| job(&lane, settlement))
        .collect();
    let deadline = lane.now() + lane.site.options.confirm_timeout;
    let mut pause = Duration::from_millis(20);
    let mut last = None;
    while jobs.iter().any(|job| job.answer.is_none()) {
        let left = deadline.saturating_sub(lane.now());
        if left.is_zero() {
            break;
        }
        match round(&lane, &mut jobs, left.min(lane.patience())).await {
            Ok(()) => {}
            Err(error) => {
                last = Some(error);
                tokio::time::sleep(pause.min(left)).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        }
    }
    finish(&lane, jobs, last)
}

fn job(lane: &Lane, settlement: Settlement) -> Job {
    let mut job = Job {
        id: EntryId { ms: 0, sequence: 0 },
        base: 0,
        attempt: settlement.attempt,
        certain_until: Duration::ZERO,
        ours: false,
        tried: false,
        undeleted: false,
        answer: None,
        settlement,
    };
    if let Verdict::Retry { after } | Verdict::Release { after } = job.settlement.verdict
        && after > defaults::LONGEST_DELAY
    {
        job.answer = Some(Err(Error::new(
            ErrorKind::Invalid,
            "a delay is at most 366 days",
        )));
        return job;
    }
    let receipt = job.settlement.receipt;
    let mut inner = lane.table.lock();
    match inner
        .held
        .get_mut(&receipt.tag[0])
        .filter(|_| receipt.scope == lane.table.scope)
    {
        Some(held) if !held.settling => {
            held.settling = true;
            job.ours = true;
            job.id = held.id;
            job.base = held.base;
            job.attempt = job.attempt.max(held.attempt);
            job.certain_until = held.certain_until;
        }
        _ => job.answer = Some(Err(stale())),
    }
    job
}

/// Sends everything unanswered in one write and reads the answers.
async fn round(lane: &Lane, jobs: &mut [Job], limit: Duration) -> Result<()> {
    let mut pipeline = Pipeline::new();
    let open = |job: &&mut Job| job.answer.is_none();
    // Time for the command to get there.
    let soon = lane.now() + lane.subscription.lock / 6;
    let (mut fast, mut single) = (vec![], vec![]);
    // Without marks, and with.
    let (mut checked, mut released) = ([vec![], vec![]], [vec![], vec![]]);
    for job in jobs.iter_mut().filter(open) {
        let marked = usize::from(job.settlement.mark.is_some());
        match job.settlement.verdict {
            Verdict::Complete if job.undeleted => fast.push(job),
            Verdict::Complete if marked == 0 && job.certain_until > soon && !job.tried => {
                fast.push(job);
            }
            Verdict::Complete => checked[marked].push(job),
            Verdict::Release { after } if after.is_zero() => released[marked].push(job),
            _ => single.push(job),
        }
    }
    if !fast.is_empty() {
        // Deleted first: cut in between, the other order would leave an entry that nobody owns.
        let ids: Vec<String> = fast.iter().map(|job| job.id.to_string()).collect();
        pipeline.cmd("XDEL").arg(&lane.keys.stream).arg(&ids);
        pipeline
            .cmd("XACK")
            .arg(&lane.keys.stream)
            .arg(GROUP)
            .arg(&ids);
    }
    for jobs in checked.iter().filter(|jobs| !jobs.is_empty()) {
        pipeline.add_command(together(lane, &COMPLETE, jobs, |_, _| {}));
    }
    for jobs in released.iter().filter(|jobs| !jobs.is_empty()) {
        pipeline.add_command(together(lane, &RELEASE, jobs, |command, job| {
            command.arg(job.base);
        }));
    }
    for job in &single {
        pipeline.add_command(command_of(lane, job));
    }
    let replies = match lane.links.exchange(lane.keys.slot, &pipeline, limit).await {
        Ok(replies) => replies,
        Err(_) if Flaw::SettlementForgotten.on() => {
            let open = jobs.iter_mut().filter(open);
            open.for_each(|job| job.answer = Some(Ok(())));
            return Ok(());
        }
        Err(Broken::Before(error)) => return Err(error),
        Err(Broken::After(error)) => {
            jobs.iter_mut()
                .filter(open)
                .for_each(|job| job.tried = true);
            return Err(error);
        }
    };
    CrashPoint::SettleSent.reached();
    let mut replies = replies.into_iter();
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let mut outcome = Outcome::default();
    if !fast.is_empty() {
        let deleted = next();
        let acknowledged = next();
        let refused = matches!(deleted, Value::ServerError(_));
        let count = int(&acknowledged);
        for job in fast {
            if refused {
                // One of the two was done without the other: an entry that nobody gets and nobody removes.
                (job.tried, job.undeleted) = (true, true);
                outcome.answer(job, deleted.clone());
                continue;
            }
            // Fewer than asked: with certain locks that means that the queue itself is gone.
            let answer = if count == Some(0) {
                Value::Int(-1)
            } else {
                acknowledged.clone()
            };
            outcome.answer(job, answer);
        }
    }
    for group in checked.into_iter().chain(released) {
        if group.is_empty() {
            continue;
        }
        let reply = next();
        let refusal = matches!(reply, Value::ServerError(_)).then(|| reply.clone());
        let mut each = array(reply).into_iter();
        for job in group {
            let answer = refusal.clone().or_else(|| each.next());
            outcome.answer(job, answer.unwrap_or(Value::Nil));
        }
    }
    for job in single {
        outcome.answer(job, next());
    }
    outcome.repair(lane, limit).await
}

/// What has to be done before the rest can be sent again.
#[derive(Default)]
struct Outcome {
    scripts_missing: bool,
    passing: Option<Error>,
}

impl Outcome {
    /// Reads one answer: 1 and more is done, 0 somebody else's, -1 not there, -2 too many fields.
    fn answer(&mut self, job: &mut Job, reply: Value) {
        job.answer = match reply {
            reply if scripts::is_unknown(&reply) => {
                self.scripts_missing = true;
                None
            }
            Value::ServerError(error) if is_missing(&error) => Some(Err(stale())),
            Value::ServerError(error) if is_passing(&error) => {
                self.passing = Some(refused(&error));
                None
            }
            Value::ServerError(error) => Some(Err(refused(&error))),
            reply => Some(match int(&reply) {
                Some(1..) => Ok(()),
                // Our earlier try has done it, only its answer was lost.
                Some(-1) if job.tried => Ok(()),
                Some(0)
                    if job.tried && matches!(job.settlement.verdict, Verdict::Release { .. }) =>
                {
                    Ok(())
                }
                Some(0 | -1) => Err(stale()),
                Some(-2) => Err(Error::new(
                    ErrorKind::Invalid,
                    "a message with more than 1,000 fields can be dead-lettered but not retried",
                )),
                _ => Err(unexpected()),
            }),
        };
    }

    async fn repair(self, lane: &Lane, limit: Duration) -> Result<()> {
        if self.scripts_missing {
            scripts::load(&lane.links, lane.keys.slot, limit)
                .await
                .map_err(Broken::into_error)?;
        }
        self.passing.map_or(Ok(()), Err)
    }
}

/// One script for many. All of them have marks or none has.
fn together(lane: &Lane, script: &Script, jobs: &[&mut Job], more: impl Fn(&mut Cmd, &Job)) -> Cmd {
    let marks = jobs.iter().filter_map(|job| mark_of(lane, job));
    let keys: Vec<String> = std::iter::once(lane.keys.stream.clone())
        .chain(marks)
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut command = script.call(&keys);
    command.arg(GROUP).arg(&lane.consumer);
    for job in jobs {
        command.arg(job.id.to_string());
        more(&mut command, job);
        add_mark(&mut command, job);
    }
    command
}

/// The mark of its id, where something becomes of it.
fn mark_of(lane: &Lane, job: &Job) -> Option<String> {
    let mark = job.settlement.mark.as_ref()?;
    Some(lane.keys.mark_named(&mark.name))
}

fn add_mark(command: &mut Cmd, job: &Job) {
    if let Some(mark) = &job.settlement.mark {
        add_change(command, mark);
    }
}

fn command_of(lane: &Lane, job: &Job) -> Cmd {
    let keys = &lane.keys;
    let id = job.id.to_string();
    let mark = mark_of(lane, job);
    let with_mark = |script: &Script, keys: &[&str]| {
        let keys: Vec<&str> = keys.iter().copied().chain(mark.as_deref()).collect();
        script.call(&keys)
    };
    let mut command = match &job.settlement.verdict {
        Verdict::DeadLetter { reason, detail } => {
            let mut command = with_mark(&DEAD_LETTER, &[&keys.stream, &keys.dead()]);
            let queue = keys.physical();
            let attempts = job.settlement.attempt;
            command
                .arg(GROUP)
                .arg(&lane.consumer)
                .arg(id)
                .arg(reason.as_str());
            command.arg(cut(detail)).arg(attempts).arg(queue);
            command
        }
        verdict => {
            let (wait, used) = match verdict {
                Verdict::Retry { after } => (*after, job.attempt),
                Verdict::Release { after } => (*after, job.attempt.saturating_sub(1)),
                _ => (Duration::ZERO, job.attempt),
            };
            let used = if Flaw::AttemptsInMemory.on() { 0 } else { used };
            let mut command = with_mark(&RETRY, &[&keys.stream, &keys.delayed(), &keys.wake()]);
            command
                .arg(GROUP)
                .arg(&lane.consumer)
                .arg(id)
                .arg(used)
                .arg(whole_ms(wait))
                .arg(&keys.part);
            command
        }
    };
    add_mark(&mut command, job);
    command
}

fn finish(lane: &Lane, jobs: Vec<Job>, last: Option<Error>) -> Vec<Result<(), Unsettled>> {
    let mut over = Vec::with_capacity(jobs.len());
    let answers = jobs.into_iter().map(|job| {
        let tag = job.settlement.receipt.tag[0];
        let error = match job.answer {
            Some(Ok(())) => {
                over.push(tag);
                return Ok(());
            }
            Some(Err(error)) => error,
            None if job.tried => Error::new(
                ErrorKind::Unknown,
                "redis did not confirm the settlement in time; it may have happened or not",
            ),
            None => {
                let why = last.as_ref().map(ToString::to_string).unwrap_or_default();
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the settlement could not be sent: {why}"),
                )
            }
        };
        if job.ours && error.kind() == ErrorKind::Stale {
            over.push(tag);
        } else if job.ours
            && let Some(held) = lane.table.lock().held.get_mut(&tag)
        {
            held.settling = false;
        }
        Err(job.settlement.refused(error))
    });
    let answers = answers.collect();
    lane.table.remove(&over);
    answers
}

/// The answer to whoever no longer has the lock.
pub(crate) fn stale() -> Error {
    Error::new(
        ErrorKind::Stale,
        "the lock on this message was lost; nothing was changed",
    )
}

/// At most the length of a detail, at a character's border.
pub(crate) fn cut(detail: &str) -> &str {
    let mut end = defaults::DETAIL_BYTES.min(detail.len());
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.get(..end).unwrap_or_default()
}
