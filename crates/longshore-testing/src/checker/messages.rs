//! What is known of each message.

use std::{
    collections::HashMap,
    ops::{Index, IndexMut},
    time::Duration,
};

use super::attempts::Attempts;
use crate::history::{Answer, Ending, Fate, Publish};

/// One message. A million of them are kept, so this is small.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) seq: u64,
    pub(super) delay: Duration,
    pub(super) fate: Fate,
    /// Its publisher and queue: see [`Messages::streams`].
    pub(super) stream: u32,
    pub(super) session: Option<u32>,
    pub(super) id: Option<u32>,
    /// The first publish that was not refused, so far.
    pub(super) published: Duration,
    pub(super) tries: u16,
    pub(super) confirmed: u16,
    pub(super) refused: u16,
    pub(super) duplicates: u16,
    pub(super) redrives: u16,
    pub(super) attempts: Attempts,
    pub(super) starts: u16,
    /// The attempt that was to be noted last, since the last start; 0 for none.
    pub(super) noted: u16,
    /// Those before it.
    pub(super) unstarted: u16,
    /// Ended with success or a refusal for good, and not explained as unsettled.
    pub(super) finals: u16,
    /// The last of these.
    pub(super) done: Option<Done>,
    pub(super) last: Option<Last>,
    /// A start that was still allowed to settle has succeeded.
    pub(super) handled: bool,
    /// One that was not has.
    pub(super) fenced: bool,
    pub(super) dead: u16,
    pub(super) left: bool,
    /// Redriven, and not started since.
    pub(super) fresh: bool,
    /// Started for the first time after a later one of its session, as what is unknown may.
    pub(super) late: bool,
}

/// The last start of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) attempt: u32,
    pub(super) process: u32,
    pub(super) at: Duration,
    pub(super) ended: Option<Ending>,
}

/// A start that left nothing to be done, once it is settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) process: u32,
    pub(super) started: Duration,
    pub(super) ended: Duration,
}

impl Message {
    /// Publishes that may have stored a copy.
    pub(super) fn stored(&self) -> u32 {
        u32::from(self.tries.saturating_sub(self.refused + self.duplicates))
    }

    /// Copies that may be about; one more for each redrive.
    pub(super) fn copies(&self) -> u32 {
        self.stored() + u32::from(self.redrives)
    }

    /// Attempts that may count and of which no handler is known to have started.
    pub(super) fn only_noted(&self) -> u32 {
        u32::from(self.unstarted) + u32::from(self.noted > 0)
    }

    /// It can succeed, and no later attempt is for nothing.
    pub(super) fn innocent(&self, max_attempts: u32) -> bool {
        match self.fate {
            Fate::Succeed => true,
            Fate::Fail(times) => times < max_attempts,
            _ => false,
        }
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Confirmed => self.confirmed += 1,
            Answer::Duplicate => self.duplicates += 1,
            Answer::Refused => self.refused += 1,
            Answer::Unknown => {}
        }
    }
}

/// All messages, in the order of their first publish.
#[derive(Debug, Default)]
pub(super) struct Messages {
    all: Vec<Message>,
    numbers: HashMap<u64, u32>,
    queues: HashMap<String, u32>,
    by_stream: HashMap<(u32, u32), u32>,
    /// Publisher and queue.
    pub(super) streams: Vec<(u32, String)>,
}

impl Messages {
    pub(super) fn index(&self, number: u64) -> Option<usize> {
        self.numbers.get(&number).map(|index| *index as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of a queue.
    pub(super) fn queue(&mut self, name: &str) -> u32 {
        if let Some(queue) = self.queues.get(name) {
            return *queue;
        }
        let queue = narrow(self.queues.len());
        self.queues.insert(name.to_owned(), queue);
        queue
    }

    pub(super) fn add(
        &mut self,
        at: Duration,
        publisher: u32,
        publish: &Publish,
        session: Option<u32>,
        id: Option<u32>,
    ) -> usize {
        let queue = self.queue(&publish.queue);
        let stream = *self.by_stream.entry((publisher, queue)).or_insert_with(|| {
            self.streams.push((publisher, publish.queue.clone()));
            narrow(self.streams.len() - 1)
        });
        let index = self.all.len();
        self.numbers.insert(publish.message, narrow(index));
        self.all.push(Message {
            number: publish.message,
            seq: publish.seq,
            delay: publish.delay,
            fate: publish.fate,
            stream,
            session,
            id,
            published: at,
            tries: 0,
            confirmed: 0,
            refused: 0,
            duplicates: 0,
            redrives: 0,
            attempts: Attempts::default(),
            starts: 0,
            noted: 0,
            unstarted: 0,
            finals: 0,
            done: None,
            last: None,
            handled: false,
            fenced: false,
            dead: 0,
            left: false,
            fresh: false,
            late: false,
        });
        index
    }
}

impl Index<usize> for Messages {
    type Output = Message;

    fn index(&self, index: usize) -> &Message {
        &self.all[index]
    }
}

impl IndexMut<usize> for Messages {
    fn index_mut(&mut self, index: usize) -> &mut Message {
        &mut self.all[index]
    }
}

/// Indices are kept small: four thousand million are enough.
pub(super) fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_small() {
        assert!(size_of::<Message>() <= 232, "{}", size_of::<Message>());
    }
}
