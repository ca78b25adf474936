//! Storing what is published.

use std::{task::Waker, time::Duration};

use longshore_core::{Destination, Envelope, Error, ErrorKind, Name, Outgoing, Published, Result};

use crate::{
    delay::delay_is_possible,
    entry::Entry,
    state::{State, no_such},
    store::MemoryStore,
};

impl State {
    /// Stores one message, or says why not.
    pub(crate) fn publish(
        &mut self,
        outgoing: Outgoing,
        store: &MemoryStore,
        now: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<Published> {
        let Outgoing {
            to,
            envelope,
            delay,
            dedup_window,
        } = outgoing;
        delay_is_possible(delay)?;
        let capacity = self.capacity;
        match to {
            Destination::Queue(name, part) => {
                let window = dedup_window.filter(|_| !envelope.id.is_empty());
                let copy = window.map_or(0, |_| self.serial());
                let queue = self.queue(&name)?;
                let to = queue.origin(part, envelope.priority.as_ref());
                let to = to.ok_or_else(|| no_such("such part of the queue", &name))?;
                let mut entry = Entry::new(envelope, now);
                let mut book = None;
                if window.is_some() {
                    let book = book.insert(store.book());
                    if book.knows(queue.scope(&to), &entry, now) {
                        return Ok(Published::Duplicate);
                    }
                }
                if queue.stored >= capacity {
                    return Err(full(&name, capacity));
                }
                if let (Some(window), Some(mut book)) = (window, book) {
                    entry.copy = copy;
                    book.hold(queue.scope(&to), &entry, window, delay, now)?;
                }
                queue.add(&to, entry, now, delay, wakers);
            }
            Destination::Topic(topic) => {
                let window = dedup_window.filter(|_| !envelope.id.is_empty());
                let times = (now, delay);
                return self.publish_to_topic(&topic, &envelope, window, times, store, wakers);
            }
            Destination::Reply(address) => self.inboxes.deliver(&address, envelope, wakers),
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the memory transport does not know this destination",
                ));
            }
        }
        Ok(Published::Accepted)
    }

    /// A copy to every bound queue that does not know it, or to none where one of them is full.
    fn publish_to_topic(
        &mut self,
        topic: &Name,
        envelope: &Envelope,
        window: Option<Duration>,
        (now, delay): (Duration, Duration),
        store: &MemoryStore,
        wakers: &mut Vec<Waker>,
    ) -> Result<Published> {
        let copy = window.map_or(0, |_| self.serial());
        let bound = self.topics.get(topic).filter(|queues| !queues.is_empty());
        let bound = bound.ok_or_else(|| no_such("queue bound to the topic", topic))?;
        let mut book = window.map(|window| (store.book(), window));
        let mut copies = Vec::with_capacity(bound.len());
        for name in bound {
            let Some(queue) = self.queues.get(name) else {
                continue;
            };
            let to = queue.origin_of_copy(envelope);
            let mut entry = Entry::new(envelope.clone(), now);
            if let Some((book, _)) = book.as_ref().filter(|_| queue.deduplicates) {
                if book.knows(queue.scope(&to), &entry, now) {
                    continue;
                }
                entry.copy = copy;
            }
            if queue.stored >= self.capacity {
                return Err(full(name, self.capacity));
            }
            copies.push((name, queue.scope(&to).clone(), to, entry));
        }
        if let Some((book, window)) = &mut book {
            for (at, (_, scope, _, entry)) in copies.iter().enumerate() {
                if entry.copy == 0 {
                    continue;
                }
                if let Err(refused) = book.hold(scope, entry, *window, delay, now) {
                    for (_, scope, _, entry) in &copies[..at] {
                        book.let_go(scope, entry, now);
                    }
                    return Err(refused);
                }
            }
        }
        if copies.is_empty() {
            return Ok(Published::Duplicate);
        }
        for (name, _, to, entry) in copies {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.add(&to, entry, now, delay, wakers);
            }
        }
        Ok(Published::Accepted)
    }
}

fn full(queue: &Name, capacity: usize) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("the queue \"{queue}\" holds {capacity} messages and dead letters, its capacity"),
    )
}
