//! Figures of the parts of a queue, all parts in two round trips.

use std::time::Duration;

use longshore_core::{ConnectOptions, Error, ErrorKind, Name, Result, Stats};
use redis::{Cmd, Value};

use crate::{
    entry::{EntryId, array, entries, int, lookup, pending, text},
    failure::{refused, unread},
    link::Links,
    meta::Meta,
    names::{GROUP, Keys, RETURNED},
    spread::spread,
    topology::partitions,
};

/// A consumer seen this recently is alive: each reads twice a second and renews its locks.
const ALIVE: Duration = Duration::from_secs(15);

/// Commands for each part.
const QUESTIONS: usize = 8;

/// One part, and what kind it is.
struct Part {
    keys: Keys,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Lane,
    Partition,
}

/// Figures over all parts of this queue.
pub(crate) async fn of_queue(
    links: &Links,
    options: &ConnectOptions,
    queue: &Name,
) -> Result<Stats> {
    let prefix = &options.key_prefix;
    let limit = options.confirm_timeout;
    let normal = Keys::new(prefix, queue);
    let meta = Meta::read(links, &normal, limit).await?;
    let part = |kind| move |keys| Part { keys, kind };
    let lanes = meta.lanes.iter();
    let lanes = lanes.map(|lane| Keys::lane(prefix, queue, lane));
    let partitions = partitions::keys_of(options, queue, meta.partitions);
    let parts: Vec<Part> = std::iter::once(part(Kind::Normal)(normal))
        .chain(lanes.map(part(Kind::Lane)))
        .chain(partitions.into_iter().map(part(Kind::Partition)))
        .collect();

    let questions: Vec<_> = parts.iter().flat_map(questions).collect();
    let mut replies = spread(links, &questions, limit).await.into_iter();
    let mut stats = Stats::default();
    let (mut in_flight, mut delayed, mut consumers) = (0, 0, 0);
    let mut first_waiting = Vec::new();
    let mut next_up = Vec::new();
    let mut now = 0;
    for part in &parts {
        let answers: Result<Vec<Value>> = replies
            .by_ref()
            .take(QUESTIONS)
            .map(|reply| reply.map_err(unread))
            .collect();
        let Some(seen) = Seen::of(queue, part, answers?)? else {
            continue;
        };
        stats.ready += seen.ready;
        stats.dead += seen.dead;
        in_flight += seen.in_flight;
        delayed += seen.delayed;
        consumers += seen.consumers;
        first_waiting.extend(seen.returned);
        now = now.max(seen.now);
        next_up.push((part.keys.slot, behind(&part.keys, seen.delivered)));
    }
    for reply in spread(links, &next_up, limit).await {
        let found = entries(reply.map_err(unread)?);
        first_waiting.extend(found.into_iter().next().map(|entry| entry.id));
    }
    stats.in_flight = Some(in_flight);
    stats.delayed = Some(delayed);
    stats.consumers = Some(consumers);
    let oldest = first_waiting.into_iter().min();
    stats.oldest = oldest.map(|id| Duration::from_millis(now.saturating_sub(id.ms)));
    Ok(stats)
}

fn questions(part: &Part) -> [(u16, Cmd); QUESTIONS] {
    let keys = &part.keys;
    let stream = &keys.stream;
    let ask = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        (keys.slot, command)
    };
    [
        ask(&["XLEN", stream]),
        ask(&["XPENDING", stream, GROUP]),
        match part.kind {
            // An owner that reads in vain is not seen by every server.
            Kind::Partition => ask(&["EXISTS", &keys.lease()]),
            _ => ask(&["XINFO", "CONSUMERS", stream, GROUP]),
        },
        ask(&["XINFO", "GROUPS", stream]),
        ask(&["XPENDING", stream, GROUP, "-", "+", "1", RETURNED]),
        ask(&["ZCARD", &keys.delayed()]),
        ask(&["XLEN", &keys.dead()]),
        ask(&["TIME"]),
    ]
}

/// The first entry that was not delivered yet.
fn behind(keys: &Keys, delivered: Option<String>) -> Cmd {
    let mut command = redis::cmd("XRANGE");
    command.arg(&keys.stream);
    command.arg(delivered.map_or("-".to_owned(), |id| format!("({id}")));
    command.arg("+").arg("COUNT").arg(1);
    command
}

/// What one part answered.
struct Seen {
    ready: u64,
    in_flight: u64,
    consumers: u64,
    delayed: u64,
    dead: u64,
    delivered: Option<String>,
    /// The first entry that was given back.
    returned: Option<EntryId>,
    /// The server's time in ms.
    now: u64,
}

impl Seen {
    /// `None` for a part that was deleted by hand: it holds nothing.
    fn of(queue: &Name, part: &Part, answers: Vec<Value>) -> Result<Option<Self>> {
        let is_refusal = |answer: &&Value| matches!(answer, Value::ServerError(_));
        if let Some(Value::ServerError(error)) = answers.iter().find(is_refusal) {
            let error = refused(error);
            let missing = matches!(error.kind(), ErrorKind::NoSuchQueue | ErrorKind::Rejected);
            return match part.kind {
                _ if !missing => Err(error),
                Kind::Normal => {
                    let text = format!("there is no queue {queue}");
                    Err(Error::new(ErrorKind::NoSuchQueue, text))
                }
                Kind::Lane | Kind::Partition => Ok(None),
            };
        }
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Value::Nil);
        let length = count(&next());
        let in_flight = held(next());
        let consumers = match part.kind {
            Kind::Partition => count(&next()),
            _ => alive(next()),
        };
        let (delivered, returned) = (last_delivered(next()), pending(next()));
        // These belong to all lanes: only one of them is asked.
        let own = |answer: Value| {
            if part.kind == Kind::Lane {
                0
            } else {
                count(&answer)
            }
        };
        let (delayed, dead) = (own(next()), own(next()));
        let time = array(next());
        let time = |place: usize| time.get(place).map_or(0, count);
        Ok(Some(Self {
            ready: length.saturating_sub(in_flight),
            in_flight,
            consumers,
            delayed,
            dead,
            delivered,
            returned: returned.first().map(|row| row.id),
            now: time(0) * 1000 + time(1) / 1000,
        }))
    }
}

/// Entries that a worker holds, going by the summary of the pending list.
fn held(summary: Value) -> u64 {
    let summary = array(summary);
    let by_consumer = summary.get(3).cloned().map(array).unwrap_or_default();
    let returned = by_consumer.into_iter().map(array).filter(|row| {
        let name = row.first().cloned().and_then(text).unwrap_or_default();
        name == RETURNED || name.starts_with("_returned:")
    });
    let returned: u64 = returned.filter_map(|row| row.get(1).map(count)).sum();
    let all = summary.first().map_or(0, count);
    all.saturating_sub(returned)
}

fn alive(consumers: Value) -> u64 {
    let consumers = array(consumers);
    let alive = consumers.iter().filter(|consumer| {
        let name = lookup(consumer, "name").cloned().and_then(text);
        let idle = lookup(consumer, "idle").map_or(0, count);
        name.as_deref() != Some(RETURNED) && u128::from(idle) < ALIVE.as_millis()
    });
    alive.count() as u64
}

fn last_delivered(groups: Value) -> Option<String> {
    let is_ours =
        |group: &Value| lookup(group, "name").cloned().and_then(text).as_deref() == Some(GROUP);
    let ours = array(groups).into_iter().find(is_ours)?;
    text(lookup(&ours, "last-delivered-id")?.clone())
}

fn count(value: &Value) -> u64 {
    int(value).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
