//! One batch of settlements in a partition on its way. Each is one step on the server, which looks at
//! the lease first; what got no answer is tried again until the confirmation time-out.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    Error, ErrorKind, Result, Settlement, Unsettled, Verdict,
    chaos::{CrashPoint, Flaw},
};
use redis::{Cmd, Pipeline, Value};

use super::{Partition, Past};
use crate::{
    entry::{EntryId, array, int},
    failure::{Broken, checked, is_missing, is_passing, refused, unexpected},
    mark::add_change,
    names::{GROUP, RETURNED},
    scripts::{self, COMPLETE_PARTITION, SETTLE_PARTITION},
    settlement::{cut, stale},
};

/// Ids in one script.
const CHUNK: usize = 500;
/// In the place of a change of a mark.
const NO_MARK: &[&str] = &["", "", "", ""];

/// One settlement on its way.
struct Job {
    settlement: Settlement,
    id: EntryId,
    /// Starts that the message itself claims, which the pending list does not count.
    claimed: u32,
    /// It is held and no other settlement of it is under way.
    ours: bool,
    /// It was sent before, and no answer came.
    tried: bool,
    answer: Option<Result<()>>,
}

/// Settles a batch; one answer each, in order.
pub(crate) async fn settle_all(
    partition: Arc<Partition>,
    batch: Vec<Settlement>,
) -> Vec<Result<(), Unsettled>> {
    let jobs = batch.into_iter();
    let mut jobs: Vec<Job> = jobs.map(|settlement| job(&partition, settlement)).collect();
    let deadline = partition.now() + partition.site.options.confirm_timeout;
    let mut pause = Duration::from_millis(20);
    let mut last = None;
    while jobs.iter().any(|job| job.answer.is_none()) {
        let left = deadline.saturating_sub(partition.now());
        if left.is_zero() {
            break;
        }
        if let Err(error) = round(&partition, &mut jobs, left.min(partition.patience())).await {
            last = Some(error);
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
    finish(&partition, jobs, last)
}

/// Gives back what was read too late to be taken.
pub(crate) async fn give_back(partition: &Partition, entries: &[(EntryId, Past)]) {
    for (id, past) in entries {
        let (consumer, count) = past.unread();
        let mut command = settling(partition, *id, [None, None]);
        command.arg("release").arg(consumer).arg(count);
        command.arg(&["", ""]).arg(NO_MARK).arg("");
        let (links, slot) = (&partition.links, partition.keys.slot);
        let reply = scripts::run(links, slot, command, partition.patience()).await;
        if let Err(error) = reply.map_err(Broken::into_error).and_then(checked) {
            tracing::warn!(
                queue = %partition.keys.scope,
                %error,
                "messages that were read at the end could not be given back and will count as suspects"
            );
            return;
        }
    }
}

fn job(partition: &Partition, settlement: Settlement) -> Job {
    let mut job = Job {
        id: EntryId { ms: 0, sequence: 0 },
        claimed: 0,
        ours: false,
        tried: false,
        answer: None,
        settlement,
    };
    if matches!(job.settlement.verdict, Verdict::Retry { .. }) {
        let text = "a message of a session is tried again in its place; it cannot be retried";
        job.answer = Some(Err(Error::new(ErrorKind::Invalid, text)));
        return job;
    }
    let receipt = job.settlement.receipt;
    let mut inner = partition.table.lock();
    let held = inner.held.get_mut(&receipt.tag[0]);
    match held.filter(|_| receipt.scope == partition.table.scope) {
        Some(held) if !held.settling => {
            held.settling = true;
            job.ours = true;
            job.id = held.id;
            job.claimed = claimed(held.attempt, held.base);
        }
        _ => job.answer = Some(Err(stale())),
    }
    job
}

/// What a message says about itself: an attempt is what it claims, what is noted, and one.
pub(super) fn claimed(attempt: u32, noted: u64) -> u32 {
    let noted = u32::try_from(noted).unwrap_or(u32::MAX);
    attempt.saturating_sub(noted).saturating_sub(1)
}

/// Sends everything unanswered in one write and reads the answers.
async fn round(partition: &Partition, jobs: &mut [Job], limit: Duration) -> Result<()> {
    let is_plain = |job: &Job| {
        let settlement = &job.settlement;
        matches!(settlement.verdict, Verdict::Complete)
            && settlement.state.is_none()
            && settlement.mark.is_none()
    };
    let open = jobs.iter_mut().filter(|job| job.answer.is_none());
    let (mut plain, single): (Vec<_>, Vec<_>) = open.partition(|job| is_plain(job));
    let mut pipeline = Pipeline::new();
    let lease = &partition.lease;
    for chunk in plain.chunks(CHUNK) {
        let mut command = COMPLETE_PARTITION.call(&[&partition.keys.stream, &lease.key.name]);
        command.arg(GROUP).arg(&lease.owner);
        for job in chunk {
            command.arg(job.id.to_string());
        }
        pipeline.add_command(command);
    }
    for job in &single {
        pipeline.add_command(command_of(partition, job));
    }
    let (links, slot) = (&partition.links, partition.keys.slot);
    let replies = match links.exchange(slot, &pipeline, limit).await {
        Ok(replies) => replies,
        Err(_) if Flaw::SettlementForgotten.on() => {
            let sent = plain.into_iter().chain(single);
            sent.for_each(|job| job.answer = Some(Ok(())));
            return Ok(());
        }
        Err(Broken::Before(error)) => return Err(error),
        Err(Broken::After(error)) => {
            let sent = plain.into_iter().chain(single);
            sent.for_each(|job| job.tried = true);
            return Err(error);
        }
    };
    CrashPoint::SettleSent.reached();
    let mut replies = replies.into_iter();
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let mut outcome = Outcome::default();
    for chunk in plain.chunks_mut(CHUNK) {
        let reply = next();
        let refusal = matches!(reply, Value::ServerError(_)).then(|| reply.clone());
        let mut each = array(reply).into_iter();
        for job in chunk {
            let answer = refusal.clone().or_else(|| each.next());
            outcome.answer(partition, job, answer.unwrap_or(Value::Nil));
        }
    }
    for job in single {
        outcome.answer(partition, job, next());
    }
    if outcome.scripts_missing {
        let loaded = scripts::load(links, slot, limit).await;
        loaded.map_err(Broken::into_error)?;
    }
    outcome.passing.map_or(Ok(()), Err)
}

/// What has to be done before the rest can be sent again.
#[derive(Default)]
struct Outcome {
    scripts_missing: bool,
    passing: Option<Error>,
}

impl Outcome {
    fn answer(&mut self, partition: &Partition, job: &mut Job, reply: Value) {
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
                Some(1) => Ok(()),
                // Our earlier try has done it, only its answer was lost.
                Some(-1) if job.tried => Ok(()),
                Some(0) => {
                    partition.lease.lose();
                    Err(stale())
                }
                Some(-1 | -2) => Err(stale()),
                _ => Err(unexpected()),
            }),
        };
    }
}

/// A settlement up to its verdict. `more`: the mark of its id and the session, where they change.
fn settling(partition: &Partition, id: EntryId, more: [Option<&str>; 2]) -> Cmd {
    let keys = &partition.keys;
    let (lease, dead, token) = (&partition.lease, keys.dead(), keys.token());
    let mut names = vec![&keys.stream[..], &lease.key.name, &dead, &token];
    names.extend(more.into_iter().flatten());
    let mut command = SETTLE_PARTITION.call(&names);
    command.arg(GROUP).arg(&lease.owner).arg(id.to_string());
    command
}

fn command_of(partition: &Partition, job: &Job) -> Cmd {
    let settlement = &job.settlement;
    let state = settlement.state.as_ref();
    let session = state.map(|state| partition.keys.state(&state.key));
    let mark = settlement.mark.as_ref();
    let marked = mark.map(|mark| partition.keys.mark_named(&mark.name));
    let more = [marked.as_deref(), session.as_deref()];
    let mut command = settling(partition, job.id, more);
    match &settlement.verdict {
        Verdict::DeadLetter { reason, detail } => {
            command.arg("dead").arg(reason.as_str()).arg(cut(detail));
        }
        Verdict::Release { .. } => {
            let next = settlement.attempt.saturating_sub(job.claimed);
            let noted = next.saturating_sub(1);
            command.arg("release").arg(RETURNED).arg(noted);
        }
        _ => {
            command.arg("complete").arg("").arg("");
        }
    }
    command.arg(settlement.attempt);
    command.arg(partition.keys.physical());
    match mark {
        Some(mark) => add_change(&mut command, mark),
        None => {
            command.arg(NO_MARK);
        }
    }
    match state {
        Some(state) => {
            command.arg(state.token).arg(&*state.message);
            if let Some(value) = &state.value {
                command.arg(&value[..]);
            }
        }
        None => {
            command.arg("");
        }
    }
    command
}

fn finish(
    partition: &Partition,
    jobs: Vec<Job>,
    last: Option<Error>,
) -> Vec<Result<(), Unsettled>> {
    let mut over = Vec::with_capacity(jobs.len());
    let answers = jobs.into_iter().map(|job| {
        let tag = job.settlement.receipt.tag[0];
        let error = match job.answer {
            Some(Ok(())) => {
                over.push(tag);
                if matches!(job.settlement.verdict, Verdict::Release { .. }) {
                    partition.released().insert(job.id);
                }
                return Ok(());
            }
            Some(Err(error)) => error,
            None if job.tried => Error::new(
                ErrorKind::Unknown,
                "redis did not confirm the settlement in time; it may have happened or not",
            ),
            None => {
                let why = last.as_ref().map(ToString::to_string).unwrap_or_default();
                let text = format!("the settlement could not be sent: {why}");
                Error::new(ErrorKind::Unavailable, text)
            }
        };
        if job.ours && error.kind() == ErrorKind::Stale {
            over.push(tag);
        } else if job.ours
            && let Some(held) = partition.table.lock().held.get_mut(&tag)
        {
            held.settling = false;
        }
        Err(job.settlement.refused(error))
    });
    let answers = answers.collect();
    partition.table.remove(&over);
    answers
}
