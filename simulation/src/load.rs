//! Who publishes.

use std::{sync::Arc, time::Duration};

use longshore::{Client, ErrorKind, Published, RequestError};
use longshore_testing::history::{Answer, Event};

use crate::{
    catalogue,
    items::{Form, Item},
    job::{Ask, Unable},
    world::World,
};

/// How often an unknown publish is made again, where its queue can tell that it is the same.
const TRIES: u32 = 3;
/// And how soon.
const AGAIN: Duration = Duration::from_millis(150);

/// Publishes everything of one publisher.
pub(crate) async fn publish(world: Arc<World>, process: u32, items: Vec<Item>) {
    let (client, _faults) = world.connect(process);
    let publisher = Publisher {
        world,
        client,
        process,
    };
    let mut items = items.into_iter().peekable();
    let mut asked = Vec::new();
    while let Some(item) = items.next() {
        tokio::time::sleep(item.gap).await;
        if let Form::Ask(patience) = item.form {
            let asking = publisher.clone().ask(item.clone(), patience);
            // The next of a session waits for the answer to this one.
            match item.job.key {
                Some(_) => asking.await,
                None => asked.push(tokio::spawn(asking)),
            }
            continue;
        }
        let mut batch = vec![item];
        while let Some(next) = items.next_if(|next| {
            let last = batch.last().is_some_and(|last| last.with_next);
            last && next.queue == batch[0].queue && next.form == Form::Job
        }) {
            batch.push(next);
        }
        publisher.publish(batch).await;
    }
    for asking in asked {
        let _ = asking.await;
    }
}

#[derive(Clone)]
struct Publisher {
    world: Arc<World>,
    client: Client,
    process: u32,
}

impl Publisher {
    fn add(&self, event: Event) {
        self.world.diary.add(self.process, event);
    }

    fn answered(&self, item: &Item, answer: Answer) {
        let message = item.job.number;
        self.add(Event::Answered { message, answer });
    }

    /// Publishes a batch, and again what nobody knows of.
    async fn publish(&self, mut batch: Vec<Item>) {
        for attempt in 1.. {
            batch = self.publish_once(batch).await;
            if batch.is_empty() || attempt >= TRIES {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Answers what is worth another try.
    async fn publish_once(&self, batch: Vec<Item>) -> Vec<Item> {
        for item in &batch {
            self.add(self.world.catalogue.publish(item));
        }
        let queue = &self.world.queues[batch[0].queue];
        let drafts: Vec<_> = batch.iter().map(catalogue::draft).collect();
        let publishing = self.client.publish_all(queue, drafts);
        let patience = batch[0].patience.unwrap_or(Duration::from_secs(600));
        let answers = tokio::time::timeout(patience, publishing).await;
        let Ok(answers) = answers else {
            // Dropped on its way: it may have arrived.
            for item in &batch {
                self.answered(item, Answer::Unknown);
            }
            return Vec::new();
        };
        let mut again = Vec::new();
        for (item, answer) in batch.into_iter().zip(answers) {
            let answer = heard(&answer);
            self.answered(&item, answer);
            let told_apart = item.dedup.is_some() && item.job.key.is_none();
            if answer == Answer::Unknown && told_apart {
                again.push(item);
            }
        }
        again
    }

    async fn ask(self, item: Item, patience: Duration) {
        self.add(self.world.catalogue.publish(&item));
        let queue = &self.world.queues[item.queue];
        let ask = Ask(item.job.clone());
        let (name, value) = catalogue::number_header(&item);
        let mut asking = self.client.request(queue, &ask).timeout(patience);
        asking = asking.header(name, value);
        if let Some(id) = catalogue::id(&item) {
            asking = asking.id(id);
        }
        if let Some(key) = item.job.key {
            asking = asking.key(catalogue::key(key));
        }
        let number = item.job.number;
        let wrong = |what: String| {
            self.world
                .witness
                .wrong(format!("request {number}: {what}"))
        };
        let of_id = |told: u64| {
            let dedup = |n: u64| self.world.catalogue.item(n).and_then(|item| item.dedup);
            told == number || (item.dedup.is_some() && dedup(told) == item.dedup)
        };
        let is_unable = |n: u64| {
            let item = self.world.catalogue.item(n);
            item.is_some_and(|item| item.job.unable)
        };
        let answer = match asking.await {
            Ok(told) => {
                if !of_id(told.number) {
                    wrong(format!("was answered as {}", told.number));
                }
                Answer::Confirmed
            }
            Err(RequestError::Fault(fault)) => {
                match fault.get::<Unable>() {
                    Some(unable) if !of_id(unable.number) => {
                        wrong(format!("got the fault of {}", unable.number));
                    }
                    Some(unable) if !is_unable(unable.number) => {
                        wrong("got a fault nobody raised".to_owned());
                    }
                    _ => {}
                }
                Answer::Confirmed
            }
            Err(RequestError::NotSent(error)) => heard(&Err(error)),
            Err(RequestError::TimedOut(_) | RequestError::ConnectionLost) => Answer::Unknown,
            Err(other) => {
                wrong(format!("ended as {other:?}"));
                Answer::Unknown
            }
        };
        self.answered(&item, answer);
    }
}

/// What an answer says of the message.
fn heard(answer: &longshore::Result<Published>) -> Answer {
    match answer {
        Ok(Published::Accepted) => Answer::Confirmed,
        Ok(Published::Duplicate) => Answer::Duplicate,
        Err(error) if error.kind() == ErrorKind::Unknown => Answer::Unknown,
        Err(_) => Answer::Refused,
    }
}
