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
            // The queues bound to a topic have windows of their own, which their workers keep.
            Destination::Topic(topic) => {
                self.publish_to_topic(&topic, &envelope, now, delay, wakers)?;
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

    /// A copy to every bound queue, or to none where one of them is full.
    fn publish_to_topic(
        &mut self,
        topic: &Name,
        envelope: &Envelope,
        now: Duration,
        delay: Duration,
        wakers: &mut Vec<Waker>,
    ) -> Result<()> {
        let bound = self.topics.get(topic).filter(|queues| !queues.is_empty());
        let bound = bound.ok_or_else(|| no_such("queue bound to the topic", topic))?;
        for name in bound {
            let stored = self.queues.get(name).map_or(0, |queue| queue.stored);
            if stored >= self.capacity {
                return Err(full(name, self.capacity));
            }
        }
        for name in bound {
            if let Some(queue) = self.queues.get_mut(name) {
                let to = queue.origin_of_copy(envelope);
                queue.add(&to, Entry::new(envelope.clone(), now), now, delay, wakers);
            }
        }
        Ok(())
    }
}

fn full(queue: &Name, capacity: usize) -> Error {
    Error::new(
        ErrorKind::Full,
        format!("the queue \"{queue}\" holds {capacity} messages and dead letters, its capacity"),
    )
}
