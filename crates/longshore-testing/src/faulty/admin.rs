//! An operator whose calls fail.

use async_trait::async_trait;
use longshore_core::{Admin, DeadLetter, Name, Result, Stats, Text};

use super::{Fault, faults::unknown, transport::FaultyTransport};

impl FaultyTransport {
    /// What an operator's call of many did, or what is heard of it.
    async fn heard(&self, answers: Vec<Result<()>>) -> Vec<Result<()>> {
        let hear = |answer: Result<()>| match answer {
            Ok(()) if self.shared.strikes(Fault::AdminUnanswered) => {
                Err(unknown("admin-unanswered"))
            }
            answer => answer,
        };
        answers.into_iter().map(hear).collect()
    }
}

#[async_trait]
impl Admin for FaultyTransport {
    async fn stats(&self, queue: &Name) -> Result<Stats> {
        self.shared.refuses(Fault::AdminRefused).await?;
        self.inner.admin().stats(queue).await
    }

    async fn dead_letters(
        &self,
        queue: &Name,
        after: Option<&Text>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.shared.refuses(Fault::AdminRefused).await?;
        self.inner.admin().dead_letters(queue, after, limit).await
    }

    async fn redrive(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        if let Err(error) = self.shared.refuses(Fault::AdminRefused).await {
            return ids.iter().map(|_| Err(error.again())).collect();
        }
        let answers = self.inner.admin().redrive(queue, ids).await;
        self.heard(answers).await
    }

    async fn discard(&self, queue: &Name, ids: &[Text]) -> Vec<Result<()>> {
        if let Err(error) = self.shared.refuses(Fault::AdminRefused).await {
            return ids.iter().map(|_| Err(error.again())).collect();
        }
        let answers = self.inner.admin().discard(queue, ids).await;
        self.heard(answers).await
    }
}
