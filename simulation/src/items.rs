//! What is published.

use std::{collections::BTreeMap, time::Duration};

use longshore_testing::history::Fate;

use crate::{
    job::Job,
    random::Random,
    scenario::{DOWNSTREAM, Shape},
};

/// The lanes of a queue that has some, the most urgent first.
pub(crate) const LANES: [&str; 3] = ["high", "normal", "low"];
/// The numbers of what handlers publish begin here.
pub(crate) const CHILDREN: u64 = 100_000;

/// One message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// After the one before it.
    pub(crate) gap: Duration,
    pub(crate) job: Job,
    /// By its place in the scenario.
    pub(crate) queue: usize,
    /// `None` for the normal one.
    pub(crate) lane: Option<&'static str>,
    /// Its id in the dedup window of its queue.
    pub(crate) dedup: Option<u64>,
    pub(crate) delay: Duration,
    pub(crate) form: Form,
    /// The publisher goes on after this long whatever has come of it.
    pub(crate) patience: Option<Duration>,
    /// It goes together with the next one.
    pub(crate) with_next: bool,
}

/// What goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Job,
    /// Its answer is waited for so long.
    Ask(Duration),
    /// No JSON.
    Garbage,
    /// A type nobody handles.
    Stranger,
}

/// How many of the slow and the violent there may still be.
struct Left {
    hangs: u64,
    aborts: u64,
}

/// What each publisher publishes. A session has one publisher.
/// `limit` is that of a handler, so none works so long.
pub(crate) fn draw(
    draw: &mut Random,
    queues: &[Shape],
    load: Duration,
    limit: Duration,
) -> Vec<Vec<Item>> {
    let publishers = draw.within(1, 3);
    let mut left = Left {
        hangs: draw.pick(&[0, 0, 2, 4]),
        aborts: draw.pick(&[0, 0, 0, 1, 2]),
    };
    let mut number = 0;
    let mut all = Vec::new();
    for publisher in 0..publishers {
        let count = draw.within(10, 60);
        let gap = (load.as_millis() as u64 * 2 / count).max(1);
        let mut items: Vec<Item> = Vec::new();
        let mut seqs: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        for _ in 0..count {
            number += 1;
            let mut of = Publisher {
                publisher,
                publishers,
                seqs: &mut seqs,
                earlier: &items,
            };
            let mut item = of.item(draw, queues, number, &mut left);
            item.job.work = item.job.work.min(limit * 3 / 4);
            // Often in a burst.
            item.gap = match draw.chance(40) {
                true => Duration::ZERO,
                false => draw.millis(0, gap),
            };
            items.push(item);
        }
        all.push(items);
    }
    all
}

struct Publisher<'a> {
    publisher: u64,
    publishers: u64,
    seqs: &'a mut BTreeMap<(usize, u64), u64>,
    earlier: &'a [Item],
}

impl Publisher<'_> {
    fn item(&mut self, draw: &mut Random, queues: &[Shape], number: u64, left: &mut Left) -> Item {
        let downstream = queues.iter().position(|shape| shape.name == DOWNSTREAM);
        let published_to = queues.len() - usize::from(downstream.is_some());
        let queue = draw.below(published_to as u64) as usize;
        let shape = &queues[queue];
        let sessions = shape.partitions() > 0;
        let key = sessions.then(|| draw.below(3) * self.publishers + self.publisher);
        let mut dedup = shape.window.map(|_| number);
        // The same once more: another message that says it is one seen before.
        let again = dedup.is_some() && draw.chance(15);
        let fits = |item: &&Item| item.queue == queue && item.job.key == key;
        let before = self.earlier.iter().rev().find(fits);
        if let Some(before) = before.filter(|_| again) {
            dedup = before.dedup;
        }
        let seq = key.map_or(0, |key| {
            let seq = self.seqs.entry((queue, key)).or_default();
            *seq += 1;
            *seq
        });
        let form = match draw.below(100) {
            _ if shape.asks => Form::Ask(draw.millis(500, 8_000)),
            0..2 => Form::Garbage,
            2..4 => Form::Stranger,
            _ => Form::Job,
        };
        let fate = match form {
            Form::Garbage | Form::Stranger => Fate::Unprocessable,
            _ => fate(draw, left),
        };
        // A fault is no success: nothing the handler wrote or published is kept.
        let unable = shape.asks && fate == Fate::Succeed && draw.chance(20);
        let keeps = fate != Fate::Unprocessable && !unable;
        let parent = downstream.is_some() && keeps && draw.chance(15);
        Item {
            gap: Duration::ZERO,
            job: Job {
                number,
                key,
                seq,
                fate,
                unable,
                work: match draw.below(10) {
                    0..3 => Duration::ZERO,
                    3..9 => draw.millis(1, 400),
                    _ => draw.millis(400, 2_500),
                },
                stubborn: draw.chance(40),
                stateful: sessions && keeps && draw.chance(70),
                child: parent.then_some(CHILDREN + number),
                padding: "x".repeat(draw.below(40) as usize),
            },
            queue,
            lane: match shape.has_lanes() {
                true => Some(draw.pick(&LANES)).filter(|lane| *lane != "normal"),
                false => None,
            },
            dedup,
            delay: match !sessions && !shape.asks && draw.chance(15) {
                true => draw.millis(1, 8_000),
                false => Duration::ZERO,
            },
            form,
            patience: draw.chance(4).then(|| draw.millis(0, 300)),
            with_next: !sessions && !shape.asks && draw.chance(25),
        }
    }
}

fn fate(draw: &mut Random, left: &mut Left) -> Fate {
    match draw.below(100) {
        0..10 => Fate::Fail(draw.within(1, 3) as u32),
        10..14 => Fate::FailAlways,
        14..17 => Fate::Refuse,
        17..20 => Fate::Panic,
        20..25 if left.hangs > 0 => {
            left.hangs -= 1;
            Fate::Hang
        }
        25..28 if left.aborts > 0 => {
            left.aborts -= 1;
            Fate::Abort
        }
        _ => Fate::Succeed,
    }
}

/// What the handler of a job publishes.
pub(crate) fn child(parent: &Job, queue: usize) -> Option<Item> {
    let number = parent.child?;
    Some(Item {
        gap: Duration::ZERO,
        job: Job {
            number,
            key: None,
            seq: 0,
            fate: Fate::Succeed,
            unable: false,
            work: parent.work / 2,
            stubborn: false,
            stateful: false,
            child: None,
            padding: String::new(),
        },
        queue,
        lane: None,
        dedup: Some(number),
        delay: Duration::ZERO,
        form: Form::Job,
        patience: None,
        with_next: false,
    })
}
