//! The dead letters of one queue, for operators.

use longshore_core::{DeadLetter, Error, ErrorKind, Name, Result, Text};

use crate::Client;

/// How many are read or moved in one call to the broker.
const PAGE: usize = 100;

/// The dead letters of one queue: list, send back, discard.
///
/// Redrive publishes the original again, with its attempts reset, to the queue these dead letters
/// belong to, and removes the dead letter only once the copy is durable. Never to an address a
/// message names.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
    queue: Name,
}

/// What a redrive or discard of many has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Dead letters looked at.
    pub seen: u64,
    /// Sent back or discarded.
    pub done: u64,
    /// Chosen, but refused; they stay where they were.
    pub failed: u64,
}

#[derive(Clone, Copy)]
enum Action {
    Redrive,
    Discard,
}

impl DeadLetters {
    pub(crate) fn new(client: Client, queue: Name) -> Self {
        Self { client, queue }
    }

    /// Up to `limit` dead letters, oldest first, after the one of this id. Reading changes nothing.
    ///
    /// # Errors
    /// What kept the broker from answering.
    pub async fn list(&self, after: Option<&Text>, limit: usize) -> Result<Vec<DeadLetter>> {
        let admin = self.client.transport().admin();
        admin.dead_letters(&self.queue, after, limit).await
    }

    /// The oldest dead letter.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn peek(&self) -> Result<Option<DeadLetter>> {
        Ok(self.list(None, 1).await?.pop())
    }

    /// Sends one back to the queue.
    ///
    /// # Errors
    /// `Stale` when it is not there (any more), `Unsupported` when this broker cannot publish it
    /// again unaltered, else what kept the broker from confirming; it then stays where it was.
    pub async fn redrive(&self, id: &Text) -> Result<()> {
        self.act(Action::Redrive, std::slice::from_ref(id))
            .await
            .pop()
            .unwrap_or_else(gone)
    }

    /// Sends back every one the filter accepts; `progress` is told after each page.
    ///
    /// Looks at no more than there were at the start, so messages that fail again and return do
    /// not keep it going for ever.
    ///
    /// # Errors
    /// What kept the broker from listing. Single refusals are counted in the progress instead.
    pub async fn redrive_where(
        &self,
        filter: impl FnMut(&DeadLetter) -> bool,
        progress: impl FnMut(Progress),
    ) -> Result<Progress> {
        self.sweep(Action::Redrive, filter, progress).await
    }

    /// Sends back all of them.
    ///
    /// # Errors
    /// As [`redrive_where`](Self::redrive_where).
    pub async fn redrive_all(&self, progress: impl FnMut(Progress)) -> Result<Progress> {
        self.redrive_where(|_| true, progress).await
    }

    /// Removes one for ever.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive).
    pub async fn discard(&self, id: &Text) -> Result<()> {
        self.act(Action::Discard, std::slice::from_ref(id))
            .await
            .pop()
            .unwrap_or_else(gone)
    }

    /// Removes every one the filter accepts, for ever.
    ///
    /// # Errors
    /// As [`redrive_where`](Self::redrive_where).
    pub async fn discard_where(
        &self,
        filter: impl FnMut(&DeadLetter) -> bool,
        progress: impl FnMut(Progress),
    ) -> Result<Progress> {
        self.sweep(Action::Discard, filter, progress).await
    }

    async fn act(&self, action: Action, ids: &[Text]) -> Vec<Result<()>> {
        let admin = self.client.transport().admin();
        match action {
            Action::Redrive => admin.redrive(&self.queue, ids).await,
            Action::Discard => admin.discard(&self.queue, ids).await,
        }
    }

    async fn sweep(
        &self,
        action: Action,
        mut filter: impl FnMut(&DeadLetter) -> bool,
        mut told: impl FnMut(Progress),
    ) -> Result<Progress> {
        let mut progress = Progress::default();
        let there = self
            .client
            .transport()
            .admin()
            .stats(&self.queue)
            .await?
            .dead;
        let mut after: Option<Text> = None;
        while progress.seen < there {
            let left = usize::try_from(there - progress.seen).unwrap_or(PAGE);
            let page = self.list(after.as_ref(), left.min(PAGE)).await?;
            if page.is_empty() {
                break;
            }
            progress.seen += page.len() as u64;
            let mut kept: Vec<&Text> = Vec::new();
            let mut chosen = Vec::new();
            for letter in &page {
                if filter(letter) {
                    chosen.push(letter.id.clone());
                } else {
                    kept.push(&letter.id);
                }
            }
            let answers = self.act(action, &chosen).await;
            for (id, answer) in chosen.iter().zip(answers) {
                match answer {
                    Ok(()) => progress.done += 1,
                    Err(_) => {
                        progress.failed += 1;
                        kept.push(id);
                    }
                }
            }
            // The next page starts behind the last one that is still there.
            if let Some(last) = page.iter().rev().find(|letter| kept.contains(&&letter.id)) {
                after = Some(last.id.clone());
            }
            told(progress);
        }
        Ok(progress)
    }
}

fn gone() -> Result<()> {
    Err(Error::new(
        ErrorKind::Unknown,
        "the transport gave no answer for this dead letter",
    ))
}
