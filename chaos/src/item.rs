//! A message of a run: everything it is follows from its number and the plan.

use std::time::Duration;

use longshore::{DeadLetter, Draft, Envelope, Message, Request};
use longshore_core::derived_id;
use longshore_testing::history::{Fate, Publish};
use serde::{Deserialize, Serialize};

use crate::{
    plan::{Kind, Plan},
    random::Random,
};

/// How long a reply is awaited.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The header with the number, for dead letters whose body nobody can read.
const NUMBER: &str = "chaos-number";
/// A header that is only there to be kept.
const MARK: &str = "chaos-mark";
/// A type without a handler.
const UNKNOWN: &str = "nobody.knows";
/// In the place of the queue: published by a plain client.
const STRANGE: u64 = 9;
/// The copy number of what a handler has published.
const FOLLOW_UP: u64 = 9;

/// A message of a run.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its number. Read from the left: queue, task, boot of the publisher, count, copy.
    pub(crate) number: u64,
    /// The queue.
    pub(crate) kind: Kind,
    /// Its session.
    pub(crate) key: Option<u64>,
    /// Its place there.
    pub(crate) seq: u64,
    /// Its id in the dedup window.
    pub(crate) dedup: Option<u64>,
    /// How long until it may start.
    pub(crate) delay: Duration,
    /// Whether it is in the upper lane.
    pub(crate) high: bool,
    /// What its handler does.
    pub(crate) fate: Fate,
    /// How long its handler takes.
    pub(crate) busy: Duration,
    /// Whether its handler publishes on.
    pub(crate) leads_on: bool,
    body: Vec<u8>,
    known: bool,
}

/// The body of a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The number of the message.
    pub(crate) number: u64,
    key: Option<u64>,
    seq: u64,
    fate: Fate,
    padding: String,
}

impl Message for Work {
    const TYPE: &'static str = "work";
}

/// The body of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The number of the message.
    pub(crate) number: u64,
    /// What only this request asks.
    pub(crate) about: u64,
}

impl Message for Question {
    const TYPE: &'static str = "question";
}

impl Request for Question {
    type Reply = Reply;
}

/// The reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The number of the request.
    pub(crate) number: u64,
    /// What was asked, answered.
    pub(crate) answer: u64,
}

impl Question {
    /// The only right reply.
    pub(crate) fn reply(&self) -> Reply {
        Reply {
            number: self.number,
            answer: self.about.rotate_left(17) ^ self.number,
        }
    }
}

/// The numbers that one task of one publisher gives to its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// The queue.
    pub(crate) kind: Kind,
    /// The task, below [`Plan::TASKS`].
    pub(crate) task: u64,
    /// How often its publisher was started.
    pub(crate) boot: u64,
}

impl Numbers {
    /// The number of this message of a plain client.
    pub(crate) fn strange(self, count: u64) -> u64 {
        ((STRANGE * 100 + self.task) * 10_000 + self.boot) * 10_000_000 + count * 10
    }

    /// The number of this message, or of this copy of it.
    pub(crate) fn number(self, count: u64, copy: u64) -> u64 {
        let queue = self.kind as u64 + 1;
        (((queue * 100 + self.task) * 10_000 + self.boot) * 1_000_000 + count) * 10 + copy
    }
}

impl Item {
    /// The message of this number.
    pub(crate) fn new(plan: &Plan, number: u64) -> Self {
        let (rest, copy) = (number / 10, number % 10);
        let (rest, count) = (rest / 1_000_000, rest % 1_000_000);
        let (rest, boot) = (rest / 10_000, rest % 10_000);
        let (queue, task) = (rest / 100, rest % 100);
        let kind = match queue {
            _ if copy == FOLLOW_UP => Kind::Dedup,
            1 => Kind::Plain,
            2 | STRANGE => Kind::Sessions,
            3 => Kind::Dedup,
            _ => Kind::Requests,
        };
        // Copies are one message: they draw the same.
        let mut random = Random::of(plan.seed, number - copy);
        if copy == FOLLOW_UP {
            random = Random::of(plan.seed, number);
        }
        let own = Plan::KEYS / Plan::TASKS;
        let (key, seq) = match kind {
            Kind::Sessions if queue == STRANGE => {
                (Some(Plan::KEYS + task), boot * 1_000_000 + count)
            }
            Kind::Sessions => (
                Some(task * own + count % own),
                boot * 1_000_000 + count / own,
            ),
            _ => (None, boot * 1_000_000 + count),
        };
        // What handlers publish is typed, and so can always be read.
        let readable = copy == FOLLOW_UP || kind == Kind::Requests;
        let fate = match fate(plan, readable, &mut random) {
            Fate::Hang if !plan.is_early(kind, count) => Fate::Succeed,
            fate => fate,
        };
        let delayed = kind == Kind::Plain && random.happens(200);
        let delay = random.millis(0..=5_000);
        let high = kind == Kind::Plain && random.happens(300);
        let busy = match random.happens(plan.slow.0) {
            true => Duration::from_millis(plan.slow.1),
            // A reply that comes when nobody waits for it any more.
            false if kind == Kind::Requests && random.happens(20) => PATIENCE.mul_f64(1.2),
            false => random.millis(plan.busy.0..=plan.busy.1),
        };
        let leads_on = kind == Kind::Plain && random.happens(200);
        let padding = match random.happens(plan.bulk.0) {
            true => plan.bulk.1,
            false => random.below(plan.padding + 1),
        };
        let known = fate != Fate::Unprocessable || random.happens(500);
        let mut body = match kind {
            Kind::Requests => serde_json::to_vec(&Question {
                number,
                about: random.draw(),
            }),
            _ => serde_json::to_vec(&Work {
                number,
                key,
                seq,
                fate,
                padding: text(&mut random, padding),
            }),
        }
        .unwrap_or_default();
        if fate == Fate::Unprocessable && known {
            body.truncate(body.len() / 2);
        }
        Self {
            number,
            kind,
            key,
            seq,
            dedup: match (kind, copy) {
                (Kind::Dedup, FOLLOW_UP) => Some(number),
                (Kind::Dedup, copy) => Some(number - copy),
                (Kind::Sessions, _) if plan.known_in_sessions => Some(number),
                _ => None,
            },
            delay: if delayed { delay } else { Duration::ZERO },
            high,
            fate,
            busy,
            leads_on,
            body,
            known,
        }
    }

    /// What the handler of this one publishes on.
    pub(crate) fn follow_up(&self, plan: &Plan) -> Option<Self> {
        self.leads_on
            .then(|| Self::new(plan, self.number + FOLLOW_UP))
    }

    /// The message id. Copies share it.
    pub(crate) fn id(&self) -> String {
        match (self.number % 10, self.dedup) {
            (FOLLOW_UP, _) => derived_id(&format!("m-{}", self.number - FOLLOW_UP), 0).to_string(),
            (_, Some(dedup)) if self.kind == Kind::Dedup => format!("d-{dedup}"),
            _ => format!("m-{}", self.number),
        }
    }

    /// The line of the history for its publish.
    pub(crate) fn publish(&self) -> Publish {
        Publish {
            message: self.number,
            queue: self.kind.name().to_owned(),
            key: self.key,
            seq: self.seq,
            dedup: self.dedup,
            delay: self.delay,
            fate: self.fate,
        }
    }

    /// The message to publish. One that a handler publishes is given its id by the context.
    pub(crate) fn draft(&self) -> Draft {
        let kind = match (self.kind, self.known) {
            (_, false) => UNKNOWN,
            (Kind::Requests, _) => Question::TYPE,
            _ => Work::TYPE,
        };
        let mut draft = Draft::raw(kind, "application/json", self.body.clone()).delay(self.delay);
        for (name, value) in self.headers() {
            draft = draft.header(name, value);
        }
        if let Some(key) = self.key {
            draft = draft.key(format!("k-{key}"));
        }
        if self.high {
            draft = draft.priority("high");
        }
        draft.id(self.id())
    }

    /// The message as a plain client sends it.
    pub(crate) fn envelope(&self) -> Envelope {
        let kind = if self.known { Work::TYPE } else { UNKNOWN };
        let mut envelope = Envelope::new(kind, self.body.clone());
        envelope.id = self.id().into();
        envelope.content_type = "application/json".into();
        envelope.key = self.key.map(|key| format!("k-{key}").into());
        let headers = self.headers().into_iter();
        envelope.headers = headers.map(|(n, v)| (n.into(), v.into())).collect();
        envelope
    }

    /// Its body, where it can be read as that.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What its publisher adds to it.
    pub(crate) fn headers(&self) -> [(&'static str, String); 2] {
        let mark = Random::of(self.number, 1).draw();
        [
            (NUMBER, self.number.to_string()),
            (MARK, format!("{mark:x}")),
        ]
    }

    /// Whether this is what was published, byte for byte.
    pub(crate) fn is_intact(&self, seen: &Envelope) -> bool {
        let key = self.key.map(|key| format!("k-{key}"));
        let headers = self.headers();
        let kept = headers
            .iter()
            .all(|(name, value)| seen.header(name) == Some(value));
        let others = seen.headers.iter();
        let none_added = others
            .filter(|(name, _)| !name.starts_with("chaos-"))
            .count()
            == 0;
        seen.body == self.body
            && seen.key.as_deref() == key.as_deref()
            && *seen.id == *self.id()
            && seen.priority.as_deref() == self.high.then_some("high")
            && kept
            && none_added
    }

    /// The number of the message that travelled, as its header says.
    pub(crate) fn number_of(seen: &Envelope) -> Option<u64> {
        seen.header(NUMBER)?.parse().ok()
    }

    /// Whether this dead letter is complete.
    pub(crate) fn is_complete(&self, letter: &DeadLetter) -> bool {
        self.is_intact(&letter.envelope)
    }
}

fn fate(plan: &Plan, readable: bool, random: &mut Random) -> Fate {
    let fates = plan.fates;
    let mut drawn = random.below(1_000);
    let mut falls = |share: u64| {
        let falls = drawn < share;
        drawn = drawn.wrapping_sub(share);
        falls
    };
    let fails = u32::try_from(random.within(1..=3)).unwrap_or(1);
    match () {
        () if falls(fates.fail) => Fate::Fail(fails),
        () if falls(fates.always) => Fate::FailAlways,
        () if falls(fates.refuse) => Fate::Refuse,
        () if falls(fates.panic) => Fate::Panic,
        () if falls(fates.hang) => Fate::Hang,
        () if falls(fates.abort) => Fate::Abort,
        () if !readable && falls(fates.unprocessable) => Fate::Unprocessable,
        () => Fate::Succeed,
    }
}

/// So many bytes that no compression and no cut leaves as they are.
fn text(random: &mut Random, bytes: u64) -> String {
    let piece = format!("{:016x}", random.draw());
    let mut text = piece.repeat(usize::try_from(bytes / 16 + 1).unwrap_or(1));
    text.truncate(usize::try_from(bytes).unwrap_or_default());
    text
}
