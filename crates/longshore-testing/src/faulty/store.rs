//! A store that fails, or of which nobody hears.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use longshore_core::{Mark, MarkWrite, Result, Session, StateWrite, Store, Take, Text};

use super::{
    Fault,
    faults::{Shared, unavailable},
};

/// A store as one process sees it.
pub(super) struct FaultyStore {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Arc<dyn Store>,
}

impl FaultyStore {
    async fn ask<T>(&self, asking: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let shared = &self.shared;
        shared.refuses(Fault::StoreRefused).await?;
        let (before, after) = match shared.strikes(Fault::StoreLate) {
            false => (Duration::ZERO, Duration::ZERO),
            true if shared.below(2) == 0 => (shared.late(), Duration::ZERO),
            true => (Duration::ZERO, shared.late()),
        };
        if !before.is_zero() {
            tokio::time::sleep(before).await;
            shared.connected().await?;
        }
        let answer = asking.await?;
        if !after.is_zero() {
            tokio::time::sleep(after).await;
            shared.alive().await;
        }
        match shared.strikes(Fault::StoreUnanswered) {
            true => Err(unavailable("store-unanswered")),
            false => Ok(answer),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn shared(&self) -> bool {
        self.inner.shared()
    }

    async fn take(&self, scope: &Text, takes: &[Take]) -> Result<Vec<Mark>> {
        self.ask(self.inner.take(scope, takes)).await
    }

    async fn renew(
        &self,
        scope: &Text,
        leases: &[(Text, Text)],
        lease: Duration,
    ) -> Result<Vec<bool>> {
        self.ask(self.inner.renew(scope, leases, lease)).await
    }

    async fn write(&self, scope: &Text, marks: &[MarkWrite]) -> Result<()> {
        self.ask(self.inner.write(scope, marks)).await
    }

    async fn grant(&self, scope: &Text, token: u64) -> Result<()> {
        self.ask(self.inner.grant(scope, token)).await
    }

    async fn load(&self, scope: &Text, key: &Text, message: &Text) -> Result<Session> {
        self.ask(self.inner.load(scope, key, message)).await
    }

    async fn save(&self, scope: &Text, write: &StateWrite) -> Result<()> {
        self.ask(self.inner.save(scope, write)).await
    }

    async fn set_aside(
        &self,
        scope: &Text,
        key: &Text,
        aside: bool,
        token: Option<u64>,
    ) -> Result<()> {
        self.ask(self.inner.set_aside(scope, key, aside, token))
            .await
    }
}
