//! The dead letters of all parts of a queue as one list, oldest first, without holding more of them
//! in memory than are asked for and one of each part.

use std::collections::VecDeque;

use longshore_core::{Name, Result};

use super::{
    DeadLetters,
    place::{LetterId, Place},
};
use crate::{
    entry::{Entry, entries, int},
    failure::{checked, unread},
    meta::Meta,
    names::Keys,
    spread::spread,
};

/// Dead letters read in one go: each can be as large as a message.
const PAGE: usize = 50;

/// What is left of one part.
struct Part {
    place: Place,
    keys: Keys,
    read: VecDeque<Entry>,
    from: String,
    over: bool,
}

impl Part {
    /// The parts of the queue that have dead letters at all.
    async fn all(
        letters: &DeadLetters,
        queue: &Name,
        after: Option<LetterId>,
    ) -> Result<Vec<Self>> {
        let options = &letters.site.options;
        let limit = options.confirm_timeout;
        let plain = Place::Lanes.keys(options, queue);
        let of = Meta::read(&letters.links, &plain, limit).await?.partitions;
        let partitions = (0..of).map(|index| Place::Partition { of, index });
        let places: Vec<_> = std::iter::once(Place::Lanes).chain(partitions).collect();
        let parts = places.into_iter().map(|place| Self {
            place,
            keys: place.keys(options, queue),
            read: VecDeque::new(),
            from: match after {
                Some(after) if place <= after.place => format!("({}", after.entry),
                Some(after) => after.entry.to_string(),
                None => "-".to_owned(),
            },
            over: false,
        });
        let parts: Vec<_> = parts.collect();
        let length = |part: &Self| {
            let mut command = redis::cmd("XLEN");
            command.arg(part.keys.dead());
            (part.keys.slot, command)
        };
        let commands: Vec<_> = parts.iter().map(length).collect();
        let mut some = Vec::new();
        let lengths = spread(&letters.links, &commands, limit).await;
        for (part, length) in parts.into_iter().zip(lengths) {
            if int(&checked(length.map_err(unread)?)?) != Some(0) {
                some.push(part);
            }
        }
        Ok(some)
    }

    fn first(&self) -> Option<LetterId> {
        let entry = self.read.front()?.id;
        let place = self.place;
        Some(LetterId { entry, place })
    }
}

/// Up to `limit` of them after this one.
pub(super) async fn read(
    letters: &DeadLetters,
    queue: &Name,
    after: Option<LetterId>,
    limit: usize,
) -> Result<Vec<(LetterId, Entry)>> {
    let mut parts = Part::all(letters, queue, after).await?;
    let mut found = Vec::new();
    while found.len() < limit {
        let most = PAGE.min(limit - found.len());
        let count = most.div_ceil(parts.len().max(1));
        refill(letters, &mut parts, count).await?;
        let firsts = parts.iter().enumerate();
        let firsts = firsts.filter_map(|(place, part)| Some((part.first()?, place)));
        let Some((id, place)) = firsts.min() else {
            break;
        };
        found.extend(parts[place].read.pop_front().map(|entry| (id, entry)));
    }
    Ok(found)
}

/// Reads on where nothing is left to compare.
async fn refill(letters: &DeadLetters, parts: &mut [Part], count: usize) -> Result<()> {
    let empty = |part: &&mut Part| part.read.is_empty() && !part.over;
    let mut empty: Vec<_> = parts.iter_mut().filter(empty).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let range = |part: &&mut Part| {
        let mut command = redis::cmd("XRANGE");
        command.arg(part.keys.dead()).arg(&part.from).arg("+");
        command.arg("COUNT").arg(count);
        (part.keys.slot, command)
    };
    let commands: Vec<_> = empty.iter().map(range).collect();
    let limit = letters.site.options.confirm_timeout;
    let replies = spread(&letters.links, &commands, limit).await;
    for (part, reply) in empty.iter_mut().zip(replies) {
        let read: Vec<Entry> = entries(checked(reply.map_err(unread)?)?);
        part.over = read.len() < count;
        if let Some(last) = read.last() {
            part.from = format!("({}", last.id);
        }
        part.read.extend(read);
    }
    Ok(())
}
