//! What an operator can see and do.

use async_trait::async_trait;
use longshore_core::{Admin, DeadLetter, Error, ErrorKind, Name, Result, Stats, Text, chaos::Flaw};

use crate::{entry::Entry, state::State, transport::MemoryTransport};

#[async_trait]
impl Admin for MemoryTransport {
    async fn stats(&self, queue: &Name) -> Result<Stats> {
        self.open()?;
        let now = self.shared.clock.monotonic();
        self.shared.change(|state, wakers| {
            let queue = state.queue(queue)?;
            let (mut in_flight, mut delayed, mut consumers) = (0, 0, 0);
            let mut stats = Stats::default();
            for lane in queue.lanes.values_mut() {
                lane.promote(now, wakers);
                let counts = lane.counts();
                stats.ready += counts.0 as u64;
                in_flight += counts.1 as u64;
                delayed += counts.2 as u64;
                consumers += lane.consumers.values().filter(|c| !c.stopped).count() as u64;
                let waited = lane.oldest().map(|since| now.saturating_sub(since));
                stats.oldest = stats.oldest.max(waited);
            }
            stats.in_flight = Some(in_flight);
            stats.delayed = Some(delayed);
            stats.dead = queue.dead.len() as u64;
            stats.consumers = Some(consumers);
            for sessions in queue.sessions.values_mut() {
                sessions.count(now, &mut stats);
            }
            Ok(stats)
        })
    }

    async fn dead_letters(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.open()?;
        self.shared
            .change(|state, _| state.queue(queue)?.dead.page(after, limit))
    }

    async fn redrive(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        let now = self.shared.clock.monotonic();
        self.shared.change(|state, wakers| {
            ids.iter()
                .map(|id| {
                    self.open()?;
                    let queue = state.queue(queue)?;
                    let dead = queue.dead.remove(id).ok_or_else(gone)?;
                    let mut entry = Entry::new(dead.entry.envelope, now);
                    entry.exempt = true;
                    if Flaw::RedriveLosesKey.on() {
                        entry.envelope.key = None;
                    }
                    queue.put_again(&dead.from, entry, now, wakers);
                    Ok(())
                })
                .collect()
        })
    }

    async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        self.shared.change(|state, _| {
            ids.iter()
                .map(|id| {
                    self.open()?;
                    discard(state, queue, id)
                })
                .collect()
        })
    }
}

fn discard(state: &mut State, queue: &Name, id: &Text) -> Result<()> {
    let queue = state.queue(queue)?;
    queue.dead.remove(id).ok_or_else(gone)?;
    queue.stored = queue.stored.saturating_sub(1);
    Ok(())
}

fn gone() -> Error {
    Error::new(ErrorKind::Stale, "this dead letter is no longer there")
}
