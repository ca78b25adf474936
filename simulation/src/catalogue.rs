//! Everything that is published, as it has to arrive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use longshore::{Draft, Envelope, Text};
use longshore_testing::history::{Event, Publish};

use crate::{
    items::{self, Form, Item},
    job::Ask,
    scenario::{DOWNSTREAM, Scenario},
};

/// The header that names a message whatever its body is.
const NUMBER: &str = "number";

/// Everything that is published, by number, and the ids it was given.
pub(crate) struct Catalogue {
    items: BTreeMap<u64, Arc<Item>>,
    queues: Vec<String>,
    /// What handlers publish has ids the framework chose: the first that was seen counts.
    ids: Mutex<BTreeMap<u64, Text>>,
}

impl Catalogue {
    /// What a scenario publishes.
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let name = |shape: &crate::scenario::Shape| shape.name.to_owned();
        let downstream = scenario.queues.iter().position(|s| s.name == DOWNSTREAM);
        let mut known = BTreeMap::new();
        for item in scenario.publishers.iter().flatten() {
            let child = downstream.and_then(|queue| items::child(&item.job, queue));
            for item in [Some(item.clone()), child].into_iter().flatten() {
                known.insert(item.job.number, Arc::new(item));
            }
        }
        Self {
            items: known,
            queues: scenario.queues.iter().map(name).collect(),
            ids: Mutex::default(),
        }
    }

    pub(crate) fn item(&self, number: u64) -> Option<&Arc<Item>> {
        self.items.get(&number)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.items.values()
    }

    /// The line that says it is about to be published.
    pub(crate) fn publish(&self, item: &Item) -> Event {
        Event::Publish(Publish {
            message: item.job.number,
            queue: self.queues[item.queue].clone(),
            key: item.job.key,
            seq: item.job.seq,
            dedup: item.dedup,
            delay: item.delay,
            fate: item.job.fate,
        })
    }

    /// The number a message carries.
    pub(crate) fn number(envelope: &Envelope) -> Option<u64> {
        envelope.header(NUMBER)?.parse().ok()
    }

    /// Whether this is what was published under this number.
    pub(crate) fn is_intact(&self, number: u64, envelope: &Envelope) -> bool {
        let Some(item) = self.item(number) else {
            return false;
        };
        let id = match id(item) {
            Some(id) => id,
            None => {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                let first = ids.entry(number).or_insert_with(|| envelope.id.clone());
                first.to_string()
            }
        };
        *envelope.id == *id
            && envelope.key.as_deref() == item.job.key.map(|k| key(k).to_string()).as_deref()
            && envelope.priority.as_deref() == item.lane
            && envelope.kind == kind(item)
            && *envelope.body == *body(item)
            && Self::number(envelope) == Some(number)
    }
}

/// A session, as its messages carry it.
pub(crate) fn key(key: u64) -> Text {
    format!("key-{key}").into()
}

/// The id an item is published under; `None` where a handler publishes it.
pub(crate) fn id(item: &Item) -> Option<String> {
    match item.dedup {
        _ if item.job.number >= items::CHILDREN => None,
        Some(dedup) => Some(format!("d{dedup}")),
        None => Some(format!("m{}", item.job.number)),
    }
}

fn kind(item: &Item) -> &'static str {
    match item.form {
        Form::Ask(_) => "ask",
        Form::Stranger => "stranger",
        _ => "job",
    }
}

fn body(item: &Item) -> Vec<u8> {
    let body = match item.form {
        Form::Garbage => return format!("{{ no JSON {}", item.job.padding).into_bytes(),
        Form::Ask(_) => serde_json::to_vec(&Ask(item.job.clone())),
        _ => serde_json::to_vec(&item.job),
    };
    body.unwrap_or_default()
}

/// What is published, with everything but where to.
pub(crate) fn draft(item: &Item) -> Draft {
    let mut draft = Draft::raw(kind(item), "application/json", body(item))
        .header(NUMBER, item.job.number.to_string())
        .delay(item.delay);
    if let Some(id) = id(item) {
        draft = draft.id(id);
    }
    if let Some(of) = item.job.key {
        draft = draft.key(key(of));
    }
    if let Some(lane) = item.lane {
        draft = draft.priority(lane);
    }
    draft
}

/// The name of the header and what stands in it, for what is not published as a draft.
pub(crate) fn number_header(item: &Item) -> (&'static str, String) {
    (NUMBER, item.job.number.to_string())
}
